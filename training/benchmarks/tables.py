"""The tables of the paper that can be reproduced: a registry, and what runs one of them.

A file of this folder adds a table with the decorator `table`; the function gets the options and
gives a `Plan`, whose jobs are run one by one. After every job the rows so far are kept beside the
results, so a run that was stopped goes on where it was, and one of which some rows could not be
run (a competitor that is not trained yet) does only these when it is asked for again.
"""

import hashlib
import importlib
import json
import logging
import pkgutil
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dposer_core.errors import ConfigError, DPoserError
from dposer_core.files import write_text
from training.benchmarks import report
from training.benchmarks.report import Column, Row, TableResult

RESULTS = Path(__file__).parent / 'results'
FREE = 'free'
_logger = logging.getLogger(__name__)


def silent(text: str) -> None:
    """Says nothing about what is being done."""


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    data: str = FREE
    """'free': the packed free data; otherwise a packed file of the same form."""
    is_quick: bool = False
    seed: int = 42
    out: Path = RESULTS
    checkpoint: Path | None = None
    """Prior to measure instead of the shipped one of the table's part."""
    predictions: Path | None = None
    """Published answers of the network that the table starts from, in place of the stand-in."""
    progress: Callable[[str], None] = silent
    """Told what is being done."""


@dataclass(frozen=True)
class Job:
    """What fills some rows; `run` may raise DPoserError, which becomes the rows' note."""

    label: str
    run: Callable[[], Row | Sequence[Row]]


@dataclass(frozen=True)
class Plan:
    """How a table is filled."""

    columns: tuple[Column, ...]
    paper: tuple[Row, ...]
    jobs: tuple[Job, ...]
    data: str
    checkpoint_sha256: dict[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    unit: str = ''
    fingerprint: str = ''
    """Of the data; rows kept from an earlier run count only if it is the same."""


@dataclass(frozen=True)
class Need:
    """Something a table cannot be run without, or without which rows are left out."""

    what: str
    is_there: Callable[[], bool]
    how: str
    """What to do if it is not there."""
    is_optional: bool = False


@dataclass(frozen=True)
class BenchTable:
    """A registered table."""

    id: str
    title: str
    needs: tuple[Need, ...]
    plan: Callable[[Options], Plan]


_tables: dict[str, BenchTable] = {}


def table(id: str, title: str, needs: Sequence[Need] = ()) -> Callable:
    """Decorator of a function Options -> Plan; registers it as table `id` of the paper."""

    def register(plan: Callable[[Options], Plan]) -> Callable[[Options], Plan]:
        assert id not in _tables, f'table {id} is registered twice'
        _tables[id] = BenchTable(id, title, tuple(needs), plan)
        return plan

    return register


def all_tables() -> dict[str, BenchTable]:
    """Every table by number, after importing the files of this folder."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f'{__package__}.{module.name}')
    return dict(sorted(_tables.items(), key=lambda item: (len(item[0]), item[0])))


def get_table(id: str) -> BenchTable:
    """The table `id`, however it is written ('S8', 's-8', 'S-8')."""
    found = all_tables()
    wanted = _plain(id)
    for name, entry in found.items():
        if _plain(name) == wanted:
            return entry
    raise ConfigError(f"table '{id}' cannot be run; there are: {', '.join(found)}")


def run_table(entry: BenchTable, options: Options) -> TableResult:
    """Run what is not yet done of `entry` and write the result to `options.out`."""
    for need in entry.needs:
        if not need.is_optional and not need.is_there():
            raise ConfigError(f'table {entry.id} needs {need.what}: {need.how}')
    plan = entry.plan(options)
    state = _State(entry, plan, options)
    for job in plan.jobs:
        if job.label in state.rows:
            _logger.info('%s: kept from an earlier run', job.label)
            continue
        options.progress(job.label)
        began = time.monotonic()
        try:
            found = job.run()
            rows = [found] if isinstance(found, Row) else list(found)
        except DPoserError as error:
            rows = [Row(job.label, note=f'not run: {error}')]
        state.add(job.label, rows, time.monotonic() - began)
    result = state.result()
    report.write(result, options.out)
    state.clean()
    return result


class _State:
    """Rows done so far, kept in a file until the table is complete."""

    def __init__(self, entry: BenchTable, plan: Plan, options: Options) -> None:
        self.entry, self.plan, self.options = entry, plan, options
        self.rows: dict[str, list[Row]] = {}
        self.seconds = 0.0
        # As it was when the run began; the checkout may move on meanwhile.
        self.commit = _commit()
        self._id = _digest(
            entry.id, plan.data, plan.fingerprint, plan.checkpoint_sha256, plan.settings,
            options.seed, options.is_quick,
        )  # fmt: skip
        kind = 'quick.' if options.is_quick else ''
        self._path = options.out / f'.table_{entry.id}.{kind}resume.json'
        self._load()

    def add(self, label: str, rows: list[Row], seconds: float) -> None:
        """Keep the rows of one job."""
        self.rows[label] = rows
        self.seconds += seconds
        self.options.out.mkdir(parents=True, exist_ok=True)
        kept = {
            'id': self._id,
            'seconds': self.seconds,
            'commit': self.commit,
            # Rows that could not be run are tried anew.
            'rows': {k: [vars(r) for r in v] for k, v in self.rows.items() if v[0].values},
        }
        write_text(self._path, json.dumps(kept))
        if partial := self.result().missing:
            report.write(self.result(), self.options.out)
            self.options.progress(f'{len(partial)} rows to go')

    def result(self) -> TableResult:
        """Everything so far."""
        plan, options = self.plan, self.options
        ours = [row for job in plan.jobs for row in self.rows.get(job.label, [])]
        return TableResult(
            table=self.entry.id,
            title=self.entry.title,
            columns=plan.columns,
            rows=(*ours, *plan.paper),
            seed=options.seed,
            data=plan.data,
            device=device_name(),
            commit=self.commit,
            seconds=round(self.seconds, 1),
            checkpoint_sha256=plan.checkpoint_sha256,
            missing=tuple(job.label for job in plan.jobs if job.label not in self.rows),
            is_quick=options.is_quick,
            settings=plan.settings,
            unit=plan.unit,
        )

    def clean(self) -> None:
        """Remove the partial result, and the kept rows unless some are still to be had."""
        if all(row.values for rows in self.rows.values() for row in rows):
            self._path.unlink(missing_ok=True)
        for suffix in ('md', 'json'):
            (self.options.out / f'table_{self.entry.id}.partial.{suffix}').unlink(missing_ok=True)

    def _load(self) -> None:
        try:
            kept = json.loads(self._path.read_text())
            if kept['id'] != self._id:
                return
            self.rows = {k: [Row(**r) for r in v] for k, v in kept['rows'].items()}
            self.seconds, self.commit = kept['seconds'], kept['commit']
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            _logger.warning('%s cannot be read (%s); all rows are run anew', self._path, error)


def device_name() -> str:
    """The machine in words."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        model = next(x.split(':', 1)[1].strip() for x in lines if x.startswith('model name'))
    except (OSError, StopIteration):
        pass
    return f'CPU {model}'


def _commit() -> str:
    found = subprocess.run(
        ['git', 'rev-parse', '--short=12', 'HEAD'],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or 'unknown'


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _plain(id: str) -> str:
    return id.lower().replace('-', '').replace('_', '').removeprefix('table')
