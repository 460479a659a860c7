"""The run over all tables and its page: resuming, and nothing partial that looks complete."""

import base64
import re

import pytest

from dposer_core.errors import ConfigError
from training.benchmarks import all_tables, html_report, report, tables
from training.benchmarks.html_report import Entry
from training.benchmarks.report import Column, Row, TableResult

COLUMNS = (Column('FID', 'lower'), Column('APD', 'higher', 'cm'))
PAPER = (Row('DPoser', {'FID': 0.07, 'APD': 14.28}, 'paper'),)


def result(**changes) -> TableResult:
    values = {
        'table': '1', 'title': 'poses <generated>', 'columns': COLUMNS, 'seed': 1,
        'data': 'synthetic', 'rows': (Row('DPoser', {'FID': 0.17}), Row('GMM', {'FID': 2.5}),
        *PAPER), 'device': 'CPU', 'commit': 'c', 'seconds': 1.0,
    }  # fmt: skip
    return TableResult(**(values | changes))


def bench(id: str, *jobs: tables.Job, needs=()) -> tables.BenchTable:
    plan = tables.Plan(COLUMNS, PAPER, jobs, f'data of {id}')
    return tables.BenchTable(id, f'table {id}', tuple(needs), lambda options: plan)


def counting(label: str, calls: list, error: BaseException | None = None) -> tables.Job:
    def run() -> Row:
        calls.append(label)
        if error is not None:
            raise error
        return Row(label, {'FID': 1.25})

    return tables.Job(label, run)


def states(entries) -> dict[str, str]:
    return {e.table: e.status for e in entries}


@pytest.fixture
def no_plots(monkeypatch):
    monkeypatch.setattr(html_report, '_plots', lambda result: '')


def run(entries, tmp_path, **more):
    options = tables.Options(out=tmp_path / 'out')
    return all_tables.run_all(entries, options, tmp_path / 'page.html', **more)


def test_cell_shows_ours_above_the_papers_and_the_best_of_ours_bold():
    page = html_report.page([Entry('1', 'a', 'complete', result=result())], 'tables')
    assert '<td><b>0.17</b><div class="paper">0.07</div></td>' in page
    assert '<td>2.50</td>' in page
    assert '<td><div class="paper">14.28</div></td>' in page


def test_page_needs_nothing_from_outside_and_escapes_what_it_is_given():
    page = html_report.page([Entry('1', '<b>', 'complete', result=result())], 'tables')
    sources = re.findall(r'(?:src|href)="([^"]{0,26})', page)
    assert {s[:1] for s in sources if not s.startswith('data:image/svg+xml;base64')} == {'#'}
    assert '&lt;generated&gt;' in page
    assert '<generated>' not in page


def test_plot_has_a_bar_for_each_figure_of_ours_and_the_paper():
    page = html_report.page([Entry('1', 'a', 'complete', result=result())], 'tables')
    drawn = base64.b64decode(re.search(r'base64,([^"]+)', page)[1]).decode()
    assert drawn.count(f'fill: {html_report._OURS_COLOUR}') == 2
    assert drawn.count(f'fill: {html_report._PAPER_COLOUR}') == 2


def test_partial_result_cannot_be_called_complete():
    with pytest.raises(AssertionError, match='whole'):
        Entry('1', 'a', 'complete', result=result(missing=('VPoser',)))


def test_partial_table_is_marked_in_the_list_and_above_its_figures():
    entry = Entry('1', 'a', 'partial', 'The run was stopped.', result(missing=('VPoser',)))
    page = html_report.page([entry], 'tables')
    assert '0 of 1 tables are complete' in page
    assert '<td class="partial">INCOMPLETE</td>' in page
    assert '<p class="warning">INCOMPLETE. The run was stopped. To be run: VPoser.</p>' in page


def test_complete_tables_are_kept_and_others_are_run(tmp_path, no_plots):
    calls: list[str] = []
    first = bench('1', counting('a', calls))
    run([first], tmp_path)
    found = run([first, bench('2', counting('b', calls))], tmp_path)
    assert calls == ['a', 'b']
    assert states(found)['1'] == states(found)['2'] == 'complete'


def test_table_of_another_network_is_run_again(tmp_path, no_plots):
    calls: list[str] = []
    run([bench('1', counting('a', calls))], tmp_path)
    plan = tables.Plan(COLUMNS, PAPER, (counting('a', calls),), 'data of 1', {'body': 'ff'})
    run([tables.BenchTable('1', 'table 1', (), lambda options: plan)], tmp_path)
    assert calls == ['a', 'a']


def test_row_that_could_not_be_run_is_tried_again(tmp_path, no_plots):
    calls: list[str] = []
    jobs = counting('a', calls), counting('b', calls, ConfigError('not trained'))
    found = run([bench('1', *jobs)], tmp_path)
    assert states(found) == {'1': 'complete'}  # the row says why it is empty
    assert 'not trained' in (tmp_path / 'page.html').read_text()
    run([bench('1', *jobs[:1], counting('b', calls))], tmp_path)
    assert calls == ['a', 'b', 'b']


def test_stopped_run_leaves_a_page_that_says_so(tmp_path, no_plots):
    calls: list[str] = []
    stopped = bench('1', counting('a', calls), counting('b', calls, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run([stopped, bench('2', counting('c', calls))], tmp_path)
    page = (tmp_path / 'page.html').read_text()
    assert '<td class="partial">INCOMPLETE</td>' in page
    assert 'To be run: b.' in page
    assert '<td class="waiting">not run yet</td>' in page
    found = run([bench('1', counting('a', calls), counting('b', calls))], tmp_path)
    assert calls == ['a', 'b', 'b']
    assert states(found) == {'1': 'complete'}


def test_defect_of_one_table_does_not_cost_the_others(tmp_path, no_plots):
    calls: list[str] = []
    found = run(
        [
            bench('1', counting('a', calls, ZeroDivisionError('x'))),
            bench('2', counting('b', calls)),
        ],
        tmp_path,
    )
    assert states(found) == {'1': 'failed', '2': 'complete'}
    assert 'ZeroDivisionError: x' in (tmp_path / 'page.html').read_text()


def test_missing_need_says_why(tmp_path, no_plots):
    need = tables.Need('the data', lambda: False, 'get it')
    found = {e.table: e for e in run([bench('1', needs=[need])], tmp_path)}
    assert (found['1'].status, found['1'].reason) == ('impossible', 'needs the data: get it')
    assert 'needs the data: get it' in (tmp_path / 'page.html').read_text()


def test_chosen_tables_run_and_the_others_are_shown_as_they_lie(tmp_path, no_plots):
    calls: list[str] = []
    entries = [bench('1', counting('a', calls)), bench('2', counting('b', calls))]
    assert states(run(entries, tmp_path, only={'2'})) == {'1': 'waiting', '2': 'complete'}
    assert states(run(entries, tmp_path, only={'1'})) == {'1': 'complete', '2': 'complete'}
    assert calls == ['b', 'a']


def test_quick_result_is_not_shown_in_the_full_page(tmp_path):
    report.write(result(is_quick=True), tmp_path / 'out')
    assert states(run([bench('1')], tmp_path, only={'none'})) == {'1': 'waiting'}


def test_every_table_of_the_paper_can_be_run():
    wanted = {*(str(n) for n in range(1, 12)), *(f'S-{n}' for n in range(1, 19))}
    assert wanted <= {*tables.all_tables()}


@pytest.mark.slow  # two processes that import torch
def test_tables_side_by_side_come_back_and_one_that_cannot_run_says_why(tmp_path, no_plots):
    entries = [tables.get_table(id) for id in ('S-11', 'S-8')]
    options = tables.Options(data=str(tmp_path / 'none.npz'), out=tmp_path / 'out')
    found = all_tables.run_all(entries, options, tmp_path / 'page.html', workers=2)
    assert {e.table for e in found} == {'S-11', 'S-8'}
    assert {e.status for e in found} <= {'failed', 'impossible', 'complete'}
    assert all(e.reason for e in found if e.status != 'complete')
