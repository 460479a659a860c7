"""The page with one line for every table, and the pictures beside the tables."""

from pathlib import Path

import pytest

from dposer_core.errors import ConfigError
from training.benchmarks import figures, html_report, summary, tables
from training.benchmarks.html_report import Entry, Picture
from training.benchmarks.report import Column, Row, TableResult
from training.benchmarks.summary import Reading

DOCS = Path(__file__).parents[2] / 'docs' / 'BENCHMARKS.md'


def result(*rows: Row, **changes) -> TableResult:
    columns = (Column('error', 'lower', 'mm'), Column('spread', 'higher'), Column('std'))
    values = {
        'table': '1', 'title': 'poses', 'columns': columns, 'rows': rows, 'seed': 1,
        'data': 'drawn', 'device': 'CPU', 'commit': 'c', 'seconds': 60.0, 'is_quick': True,
    }  # fmt: skip
    return TableResult(**(values | changes))


def test_documented_page_is_that_of_the_results():
    titles = {id: entry.title for id, entry in tables.all_tables().items()}
    made = summary.page(summary.read_results(tables.RESULTS), titles)
    assert DOCS.read_text() == made, 'run: dposer bench summary docs/BENCHMARKS.md'


def test_every_table_is_read_by_a_row_and_a_figure_that_it_has():
    assert {*summary.READINGS} == {*tables.all_tables()}
    for id, found in summary.read_results(tables.RESULTS).items():
        for reading in summary.READINGS[id]:
            best, others = summary.lead(found, reading)
            assert best or others, id
            assert reading.headline in {column.name for column in found.columns}, id
            assert not others or reading.cause, f'table {id}: why does it not lead?'


def test_only_competing_priors_and_figures_with_a_better_side_count():
    found = result(
        Row('DPoser', {'error': 2.0, 'spread': 1.0, 'std': 9.0}),
        Row('GMM', {'error': 3.0, 'spread': 2.0, 'std': 1.0}),
        Row('live fitter', {'error': 1.0}),
        Row('DPoser, prior x 4', {'error': 1.5}),
        Row('GMM', {'error': 0.1}, 'paper'),
    )
    best, others = summary.lead(found, Reading('DPoser', 'error', without=('DPoser, ',)))
    assert [column.name for column in best] == ['error']
    assert [column.name for column in others] == ['spread']
    best, others = summary.lead(found, Reading('DPoser', 'error', rivals=('live fitter',)))
    assert [column.name for column in others] == ['error']


def test_page_says_what_was_not_run():
    page = summary.page({}, {'S-2': 'seconds', '10': 'later', '9': 'first'})
    assert '| 9 | first | not run |' in page
    assert page.index('| 9 |') < page.index('| 10 |') < page.index('| S-2 |')


def test_goal_counts_the_figures_that_keep_to_the_bound():
    found = result(Row('live', {'error': 2.0, 'std': 9.0}), Row('slow', {'error': 300.0}))
    goal = summary.Goal('within 5', '1', 'live', ('error', 'std'), 5.0)
    assert summary._goal(goal, found)[1:] == ['error: 2.0; std: 9.0', '1 of 2']
    fast = summary.Goal('faster', '1', 'live', ('error',), 100.0, is_least=True, over='slow')
    assert summary._goal(fast, found)[1:] == ['error: 150.0', '1 of 1']


def test_tables_side_by_side_take_as_long_as_the_busier_core():
    assert summary._makespan([600.0, 300.0, 240.0]) == pytest.approx(10.0)


def test_best_median_and_worst():
    assert figures.order_of([3.0, 1.0, 9.0, 2.0, 5.0]) == {'best': 1, 'median': 0, 'worst': 2}


def test_figure_that_cannot_be_drawn_says_what_can():
    with pytest.raises(ConfigError, match='there are: 3, S-1'):
        figures.name_of('12')
    assert figures.name_of('s1') == 'S-1' and figures.name_of('S-5') == 'S-5'


def test_pictures_stand_in_the_section_of_their_table_and_figures_at_the_end(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(b'picture')
    shown = Picture('Hidden <legs>', 'best & worst', path)
    found = result(Row('DPoser', {'std': 2.0}))
    entry = Entry('1', 'a', 'complete', result=found, pictures=(shown,))
    page = html_report.page([entry], 'tables', [Picture('Figure 3', 'few steps', path)])
    section, end = page.split('</section>')
    assert 'Hidden &lt;legs&gt;' in section
    assert 'data:image/png;base64,cGljdHVyZQ==' in section
    assert 'Figure 3' in end
