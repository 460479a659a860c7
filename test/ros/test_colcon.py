"""`colcon build` makes a workspace whose nodes run on installed files alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]

CHECKOUT = Path(__file__).resolve().parents[2]
CHECK_INSTALLED = """
import dposer_core, dposer_ros.msg
from dposer_ros import environment, launch_arguments
environment.require_messages()
for module in (dposer_core, environment, dposer_ros.msg):
    print(module.__file__)
print(launch_arguments.params_file(launch_arguments.parse([])))
"""


@pytest.mark.timeout(900)  # half a minute of work for the compiler, on a busy machine much more
def test_colcon_workspace_is_complete(tmp_path: Path) -> None:
    colcon = shutil.which('colcon', path=f'{sys.prefix}/bin{os.pathsep}{os.environ["PATH"]}')
    if colcon is None:
        pytest.skip('colcon is not installed')
    wheels = os.path.isdir(f'{sys.prefix}/share/rclpy')
    environ = dict(os.environ, PATH=f'{sys.prefix}/bin{os.pathsep}{os.environ["PATH"]}')
    if wheels:
        environ |= {'AMENT_PREFIX_PATH': sys.prefix, 'CMAKE_PREFIX_PATH': sys.prefix}
    build = [colcon, 'build', '--paths', str(CHECKOUT), '--cmake-args', '-DBUILD_TESTING=OFF']
    build += [f'-DPython3_EXECUTABLE={sys.executable}']
    result = subprocess.run(
        build,
        cwd=tmp_path,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert result.returncode == 0, result.stdout

    script = 'source install/setup.bash && exec "$0" -c "$1"'
    command = ['bash', '-c', script, sys.executable, CHECK_INSTALLED]
    # A clean start: what `make messages` gave this process must not help.
    for name in ('LD_LIBRARY_PATH', 'PYTHONPATH', '_ROS_WHEELS_BOOTSTRAP_COMPLETE'):
        environ.pop(name, None)
    output = subprocess.check_output(command, cwd=tmp_path, env=environ, text=True)
    assert [line for line in output.splitlines() if not line.startswith(str(tmp_path))] == []
    executables = tmp_path / 'install' / 'dposer_ros' / 'lib' / 'dposer_ros'
    assert (executables / 'dposer_wholebody').is_file()
