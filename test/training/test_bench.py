"""The harness of the paper's tables: registry, resuming, files."""

import dataclasses
import json

import pytest

from dposer_core.errors import ConfigError
from training.benchmarks import report, tables
from training.benchmarks.report import Column, Row, TableResult

COLUMNS = (Column('FID', 'lower'), Column('APD', 'higher', 'cm'))
PAPER = (Row('DPoser', {'FID': 0.07, 'APD': 14.28}, 'paper'),)


def result(**changes) -> TableResult:
    values = {
        'table': '1', 'title': 'generation', 'columns': COLUMNS, 'seed': 1, 'data': 'synthetic',
        'rows': (Row('DPoser', {'FID': 0.17}), *PAPER), 'device': 'CPU', 'commit': 'c',
        'seconds': 1.0,
    }  # fmt: skip
    return TableResult(**(values | changes))


def entry(jobs, needs=()) -> tables.BenchTable:
    plan = tables.Plan(COLUMNS, PAPER, tuple(jobs), 'synthetic')
    return tables.BenchTable('T', 'test', tuple(needs), lambda options: plan)


def test_result_survives_its_file(tmp_path):
    written = result(checkpoint_sha256={'body': 'ab'}, settings=('1000 samples',))
    _, path = report.write(written, tmp_path)
    assert report.read(path) == written


def test_difference_is_ours_minus_the_papers_where_both_have_a_value():
    found = result()
    assert found.difference(found.rows[0]) == pytest.approx({'FID': 0.10})


def test_row_may_stand_beside_a_paper_row_of_another_name():
    found = result(rows=(Row('ours, small', {'APD': 14.0}, compare='DPoser'), *PAPER))
    assert found.difference(found.rows[0]) == pytest.approx({'APD': -0.28})


def test_markdown_shows_ours_the_paper_and_the_difference():
    lines = report.to_markdown(result()).splitlines()
    assert '| DPoser | ours | 0.17 |  |  |' in lines
    assert '|  | paper | 0.07 | 14.28 |  |' in lines
    assert '|  | difference | +0.10 |  |  |' in lines


def test_many_figures_stand_below_one_another():
    columns = tuple(report.Column(f'{n} mm', decimals=1) for n in range(12))
    rows = (
        report.Row('DPoser', {'0 mm': 1.0, '11 mm': 2.0}),
        report.Row('DPoser', {'3 mm': 4.0}, 'paper'),
    )
    lines = report.to_markdown(
        dataclasses.replace(result(), columns=columns, rows=rows)
    ).splitlines()
    assert '| 0 mm | 1.0 |  |' in lines
    assert '| 3 mm |  | 4.0 |' in lines
    assert not any(line.startswith('| 5 mm') for line in lines)


def test_small_value_is_not_shown_as_nothing():
    assert COLUMNS[0].show(0.0012) == '0.0012'


def test_partial_result_has_another_name_and_says_so(tmp_path):
    path, _ = report.write(result(missing=('GMM',)), tmp_path)
    assert path.name == 'table_1.partial.md'
    assert 'INCOMPLETE' in path.read_text()
    assert not json.loads(path.with_suffix('.json').read_text())['complete']


def test_quick_result_leaves_the_full_one_alone(tmp_path):
    full, _ = report.write(result(), tmp_path)
    quick, _ = report.write(result(is_quick=True), tmp_path)
    assert full != quick
    assert 'Quick' in quick.read_text()


def test_stopped_run_goes_on_and_then_leaves_only_the_result(tmp_path):
    calls = []

    def job(label, fails=False):
        def run():
            calls.append(label)
            if fails:
                raise KeyboardInterrupt
            return Row(label, {'FID': 1.0})

        return tables.Job(label, run)

    options = tables.Options(out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tables.run_table(entry([job('a'), job('b', fails=True)]), options)
    assert (tmp_path / 'table_T.partial.md').is_file()
    found = tables.run_table(entry([job('a'), job('b')]), options)
    assert calls == ['a', 'b', 'b']
    assert found.is_complete
    assert sorted(p.name for p in tmp_path.iterdir()) == ['table_T.json', 'table_T.md']


def test_kept_rows_of_another_seed_do_not_count(tmp_path):
    def stop():
        raise KeyboardInterrupt

    first = tables.Job('a', lambda: Row('a', {'FID': 1.0}))
    with pytest.raises(KeyboardInterrupt):
        tables.run_table(entry([first, tables.Job('b', stop)]), tables.Options(out=tmp_path))
    again = [tables.Job(x, lambda x=x: Row(x, {'FID': 2.0})) for x in ('a', 'b')]
    found = tables.run_table(entry(again), tables.Options(out=tmp_path, seed=7))
    assert found.rows[0].values['FID'] == 2.0


def test_row_that_cannot_be_run_says_why(tmp_path):
    def fail():
        raise ConfigError('no weights; train it')

    found = tables.run_table(entry([tables.Job('GMM', fail)]), tables.Options(out=tmp_path))
    assert found.is_complete
    assert found.rows[0] == Row('GMM', note='not run: no weights; train it')


def test_only_rows_without_values_are_run_again(tmp_path):
    def fail():
        raise ConfigError('no weights')

    def never():
        raise AssertionError('was run before')

    options, kept = tables.Options(out=tmp_path), Row('a', {'FID': 1.0})
    tables.run_table(entry([tables.Job('a', lambda: kept), tables.Job('b', fail)]), options)
    later = [tables.Job('a', never), tables.Job('b', lambda: Row('b', {'FID': 2.0}))]
    found = tables.run_table(entry(later), options)
    assert [row.values['FID'] for row in found.rows[:2]] == [1.0, 2.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ['table_T.json', 'table_T.md']


def test_missing_need_is_an_error_with_its_remedy(tmp_path):
    need = tables.Need('the moon', lambda: False, 'wait for the night')
    with pytest.raises(ConfigError, match='needs the moon: wait for the night'):
        tables.run_table(entry([], [need]), tables.Options(out=tmp_path))


def test_unknown_table_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match='cannot be run; there are'):
        tables.get_table('99')
