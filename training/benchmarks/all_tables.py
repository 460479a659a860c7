"""Every table of the paper in one run, and the page that shows them.

A table whose complete result is on the disk, measured with the same settings and networks, is not
run again; one that was stopped goes on where it was. The page is written anew after every table.
"""

import dataclasses
import logging
import math
import multiprocessing
import signal
from collections.abc import Collection, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from dposer_core.errors import DPoserError
from training.benchmarks import figures, html_report, report
from training.benchmarks.html_report import Entry, Picture
from training.benchmarks.report import TableResult
from training.benchmarks.summary import place
from training.benchmarks.tables import BenchTable, Options, Plan, get_table, run_table, silent

_logger = logging.getLogger(__name__)


def run_all(
    tables: Sequence[BenchTable],
    options: Options,
    page: Path,
    again: bool = False,
    only: Collection[str] | None = None,
    workers: int = 1,
    drawn: Collection[str] = (),
) -> list[Entry]:
    """Run what is not yet done of all `tables`; the page at `page` is always true.

    Args:
        tables: all there are.
        options: of every table.
        page: HTML file.
        again: run complete tables as well.
        only: numbers of tables; the others are shown as an earlier run left them. None: all.
        workers: tables run side by side, each in a process of one thread; more than one need
            `tables` to be registered. 1: one after another in this process.
        drawn: names of pictures (`figures.FIGURES`) to show, drawn unless they are there.

    Returns:
        What became of each table.
    """
    found = {entry.id: _as_it_lies(entry, options) for entry in tables}
    title = f'Tables of DPoser-X, reproduced{" (quick)" if options.is_quick else ""}'

    pictures: list[Picture] = []

    def show() -> list[Entry]:
        entries = [found[id] for id in sorted(found, key=place)]
        html_report.write(entries, page, title, pictures)
        return entries

    show()
    chosen = [entry for entry in tables if only is None or entry.id in only]
    if workers > 1:
        try:
            for done in _side_by_side(chosen, options, again, workers):
                found[done.table] = done
                show()
        except BaseException:  # stopped by the user
            found |= {e.id: _as_it_lies(e, options) for e in chosen if not found[e.id].is_done}
            show()
            raise
    for entry in chosen if workers == 1 else ():
        options.progress(f'table {entry.id}: {entry.title}')
        try:
            found[entry.id] = _run(entry, options, again)
        except BaseException:  # stopped by the user
            found[entry.id] = _as_it_lies(entry, options)
            raise
        finally:
            show()
    for id in drawn:
        options.progress(f'picture {id}')
        picture = _drawn(id, options, page.parent / 'figures')
        table = figures.FIGURES[id].table
        if picture is None:
            continue
        if table in found and found[table].result is not None:
            entry = found[table]
            found[table] = dataclasses.replace(entry, pictures=(*entry.pictures, picture))
        elif not table:
            pictures.append(picture)
    return show()


def _drawn(id: str, options: Options, folder: Path) -> Picture | None:
    """A picture; None where it cannot be had here."""
    figure = figures.FIGURES[id]
    try:
        path = figures.make(id, options, folder)
    except DPoserError as error:
        _logger.warning('picture %s: %s', id, error)
        return None
    return Picture(figure.title, figure.caption, path)


def _side_by_side(
    chosen: Sequence[BenchTable], options: Options, again: bool, workers: int
) -> Iterator[Entry]:
    """What became of each table, as they are done; those that take longest begin first."""

    def seconds(entry: BenchTable) -> float:
        known = _read(entry, options, is_partial=False)
        return math.inf if known is None else known.seconds

    waiting = sorted(chosen, key=seconds)
    running: dict[Connection, tuple[BenchTable, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                entry = waiting.pop()
                pipe, process = _started(entry, options, again)
                running[pipe] = entry, process
            for pipe in wait(running):
                entry, process = running.pop(pipe)
                result = _received(pipe, entry, options)
                process.join()
                options.progress(f'table {entry.id}: {result.status}')
                yield result
    finally:
        for _, process in running.values():  # what they have done so far is on the disk
            process.terminate()
            process.join()


def _started(entry: BenchTable, options: Options, again: bool) -> tuple[Connection, BaseProcess]:
    """A process that runs the table, and where it says what became of it."""
    context = multiprocessing.get_context('spawn')  # threads of torch do not survive a fork
    here, there = context.Pipe(duplex=False)
    quiet = dataclasses.replace(options, progress=silent)  # which a process can be given
    process = context.Process(target=_run_registered, args=(there, entry.id, quiet, again))
    process.start()
    there.close()
    return here, process


def _received(pipe: Connection, entry: BenchTable, options: Options) -> Entry:
    try:
        return pipe.recv()
    except EOFError:
        return _failed(entry, options, 'its process ended without a word')
    finally:
        pipe.close()


def _run_registered(pipe: Connection, id: str, options: Options, again: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    torch.set_num_threads(1)
    pipe.send(_run(get_table(id), options, again))


def _run(entry: BenchTable, options: Options, again: bool) -> Entry:
    missing = [need for need in entry.needs if not need.is_optional and not need.is_there()]
    if missing:
        why = '; '.join(f'needs {need.what}: {need.how}' for need in missing)
        return Entry(entry.id, entry.title, 'impossible', why)
    try:
        kept = None if again else _read(entry, options, is_partial=False)
        if kept is not None and _is_of(kept, entry.plan(options), options.seed):
            options.progress('complete already')
            return Entry(entry.id, entry.title, 'complete', result=kept)
        return Entry(entry.id, entry.title, 'complete', result=run_table(entry, options))
    except DPoserError as error:
        return _failed(entry, options, str(error))
    except Exception as error:  # one table's defect must not cost the others
        _logger.exception('table %s', entry.id)
        return _failed(entry, options, f'{type(error).__name__}: {error}')


def _failed(entry: BenchTable, options: Options, why: str) -> Entry:
    return Entry(
        entry.id, entry.title, 'failed', why, _read(entry, options, is_partial=True)
    )  # fmt: skip


def _as_it_lies(entry: BenchTable, options: Options) -> Entry:
    """The table as an earlier run left it, whatever that measured."""
    partial = _read(entry, options, is_partial=True)
    if partial is not None:
        return Entry(entry.id, entry.title, 'partial', 'The run was stopped.', partial)
    whole = _read(entry, options, is_partial=False)
    if whole is not None:
        return Entry(entry.id, entry.title, 'complete', result=whole)
    return Entry(entry.id, entry.title, 'waiting')


def _read(entry: BenchTable, options: Options, is_partial: bool) -> TableResult | None:
    """A result on the disk; None where there is none of that kind that can be read."""
    kind = '.partial' if is_partial else '.quick' if options.is_quick else ''
    path = options.out / f'table_{entry.id}{kind}.json'
    if not path.is_file():
        return None
    try:
        found = report.read(path)
    except DPoserError as error:
        _logger.warning('%s', error)
        return None
    is_meant = found.is_complete != is_partial and found.is_quick == options.is_quick
    return found if is_meant else None


def _is_of(result: TableResult, plan: Plan, seed: int) -> bool:
    """Whether a complete result is what `plan` would give, with no row left to try again."""
    return (
        result.seed == seed
        and result.columns == plan.columns
        and result.checkpoint_sha256 == plan.checkpoint_sha256
        and result.data == plan.data
        and result.settings == plan.settings
        and all(row.values for row in result.rows)
    )
