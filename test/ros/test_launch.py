"""`wholebody.launch.py`, wherever ROS 2 has its launch packages (the pip wheels have none)."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

launch_testing = pytest.importorskip('launch_testing', reason='launch_testing is not installed')
pytest.importorskip('launch_ros', reason='launch_ros is not installed')

from launch import LaunchDescription, LaunchService  # noqa: E402
from launch.actions import IncludeLaunchDescription  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402

from dposer_core.body_model import open_body_path  # noqa: E402
from dposer_ros.launch_plans import PLANS  # noqa: E402
from test.ros.people_bag import crossing_messages, write_bag  # noqa: E402

pytestmark = pytest.mark.ros

LAUNCH_FILE = Path(__file__).resolve().parents[2] / 'launch' / 'wholebody.launch.py'


def test_every_argument_is_declared_and_explained() -> None:
    source = PythonLaunchDescriptionSource(str(LAUNCH_FILE))
    description = source.try_get_launch_description_without_context()
    declared = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(declared) == {argument.name for argument in PLANS['wholebody'].arguments}
    assert all(argument.description for argument in declared.values())


@pytest.mark.parametrize(
    'values',
    [
        {'respawn': 'true', 'autostart': 'false'},
        {'model_path': '/nowhere/x.npz'},
        {'log_level': 'loud'},
    ],
)
def test_bad_arguments_start_no_process(values: dict[str, str], capfd) -> None:
    service = LaunchService(noninteractive=True)
    include = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LAUNCH_FILE)), launch_arguments=values.items()
    )
    service.include_launch_description(LaunchDescription([include]))
    assert service.run() == 1
    assert 'process started' not in ''.join(capfd.readouterr())


def test_launched_node_becomes_active_and_ends_cleanly(ros_domain: int) -> None:
    if not open_body_path().is_file():
        pytest.skip('the open body is not built: run `dposer body build`')
    # launch_testing's own runner: its pytest plugin does not know pytest 9.
    command = [sys.executable, '-m', 'launch_testing.launch_test']
    runner = subprocess.Popen(
        [*command, str(Path(__file__).with_name('wholebody_launch.py'))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = runner.communicate(timeout=150)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(runner.pid, signal.SIGKILL)
    assert runner.returncode == 0, output


RUN = """\
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *given = sys.argv[1:]
pairs = [text.split(':=') for text in given]
source = PythonLaunchDescriptionSource(file)
service = LaunchService(noninteractive=True)
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=pairs)])
)
sys.exit(service.run())
"""


@pytest.mark.slow
def test_bag_is_played_answered_and_evaluated(ros_domain: int, tmp_path) -> None:
    if not open_body_path().is_file():
        pytest.skip('the open body is not built: run `dposer body build`')
    bag = write_bag(tmp_path / 'bag', crossing_messages(60))
    found = subprocess.run(
        [sys.executable, '-c', RUN, str(LAUNCH_FILE), f'bag:={bag}'],
        capture_output=True, text=True, timeout=150, cwd=tmp_path,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    out = tmp_path / 'evaluation'
    assert (out / 'report.html').is_file()
    comparison = json.loads((out / 'comparison.json').read_text())
    states, apart = comparison['states'], comparison['distance_mm']['all']['median']
    print(f'{states["other"]} of {states["this"]} states live; {apart:.0f} mm apart (median)')
    assert states['this'] == 120 and states['other'] > 60  # two people, 60 frames
    assert apart < 100.0
