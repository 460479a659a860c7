"""`dposer doctor` finds what is missing and names the remedy."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dposer_core.errors import ConfigError
from dposer_ros import cli
from dposer_ros.cli import doctor


def rows(**arguments: str) -> dict[str, doctor.Row]:
    return {row.name: row for row in doctor.diagnose(**arguments)}


def test_missing_body_names_file_and_remedy(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    row = rows()['body model']
    assert row.status == 'fail'
    assert str(tmp_path) in row.detail
    assert 'dposer body build' in row.remedy


def test_unknown_prior_fails() -> None:
    row = rows(prior='nobody')['prior']
    assert row.status == 'fail'
    assert 'nobody' in row.detail


def test_truncated_checkpoint_fails(tmp_path: Path) -> None:
    damaged = tmp_path / 'body.safetensors'
    damaged.write_bytes(b'\x10\x00\x00')
    row = rows(prior=str(damaged))['prior']
    assert row.status == 'fail'
    assert str(damaged) in row.detail


def test_bad_domain_fails(monkeypatch) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', '999')
    row = rows()['ROS domain']
    assert row.status == 'fail'
    assert '999' in row.detail


def test_an_unexpected_exception_becomes_a_row() -> None:
    def broken() -> str:
        raise OSError('disk on fire')

    row = doctor._row('disk', True, broken, 'put it out')
    assert (row.status, row.detail) == ('fail', 'OSError: disk on fire')


def test_absent_optional_part_does_not_fail() -> None:
    def absent() -> str:
        raise ConfigError('not installed')

    assert doctor._row('launch', False, absent, 'do without').status == 'absent'


@pytest.mark.parametrize(('status', 'exit_code'), [('ok', 0), ('absent', 0), ('fail', 1)])
def test_exit_status_and_json(tmp_path: Path, monkeypatch, status: str, exit_code: int) -> None:
    row = doctor.Row('part', status == 'fail', status, 'found', '')
    monkeypatch.setattr(doctor, 'diagnose', lambda *_: [row])
    file = tmp_path / 'doctor.json'
    result = CliRunner().invoke(cli.build_app('doctor'), ['doctor', '--json', str(file)])
    assert result.exit_code == exit_code
    content = json.loads(file.read_text())
    assert content['healthy'] == (exit_code == 0)
    assert content['rows'][0]['status'] == status


@pytest.mark.ros
def test_ros_and_messages_are_found() -> None:
    found = rows()
    assert found['ROS 2'].status == 'ok'
    assert found['messages'].status == 'ok'
