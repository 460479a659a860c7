"""Table 'runtime': which method has which task, and figures of a process of its own."""

import pickle

import pytest
import torch

from dposer_core.errors import DPoserError
from training.benchmarks import runtime
from training.benchmarks.tables import Options


def test_options_can_be_given_to_a_process():
    assert pickle.loads(pickle.dumps(Options(is_quick=True))) == Options(is_quick=True)


def test_method_without_the_task_has_no_figure():
    assert runtime.measure('completion', 'live fitter', Options()) is None
    assert runtime.measure('completion', 'w/o prior', Options()) is None


@pytest.mark.slow  # a process that imports torch
def test_figures_of_a_process_of_its_own():
    try:
        seconds, memory = runtime._alone('completion', 'CVPoser', Options(is_quick=True))
    except DPoserError as error:
        pytest.skip(str(error))
    assert 0 < seconds < 0.1  # decoding alone
    assert 1 < memory < 2000  # MB


def test_time_is_that_of_one_fit_and_not_of_the_first_call(monkeypatch):
    calls = []

    def fits(options, label):
        return 4, lambda: calls.append(torch.ones(200_000).sum())

    monkeypatch.setitem(runtime.TASKS, 'completion', ('pose', fits))
    seconds, memory = runtime.measure('completion', 'x', Options())
    assert len(calls) == 2
    assert 0 <= seconds < 0.05
    assert memory >= 0
