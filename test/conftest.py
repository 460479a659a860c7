"""What every test shares: no windows, few threads, no talk with other ROS 2 runs."""

import itertools
import os

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')  # two cores are shared by all processes of a test
os.environ.setdefault('MPLBACKEND', 'Agg')

_DOMAINS = itertools.count(os.getpid())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `ros` tests without ROS 2 and `gpu` tests without a CUDA device, with the reason.

    Where `make messages` has run, messages that cannot be loaded are an error and not a skip.
    """
    missing_ros = _missing_ros() if any(item.get_closest_marker('ros') for item in items) else ''
    for item in items:
        if item.get_closest_marker('ros') and missing_ros:
            item.add_marker(pytest.mark.skip(reason=missing_ros))
        if item.get_closest_marker('gpu') and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason='no CUDA device'))


def _missing_ros() -> str:
    from dposer_core.errors import ConfigError
    from dposer_ros.environment import message_prefix, require_messages

    try:
        require_messages()
    except ConfigError as error:
        if (message_prefix() / 'share' / 'dposer_ros').is_dir():
            raise pytest.UsageError(str(error)) from error
        return str(error)
    return ''


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS domain of this test's own, seen on this machine only; child processes inherit it."""
    domain = 1 + next(_DOMAINS) % 100
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    return domain
