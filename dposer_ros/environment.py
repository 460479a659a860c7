"""Where the compiled messages of a source checkout are, and how every process comes to see them.

On a robot the sourced ROS 2 set-up files do this and nothing here acts. With ROS 2 from pip
wheels, `make messages` installs the messages into `install/` of the checkout and writes one `.pth`
file into the virtual environment, which every start of its Python reads. The dynamic loader reads
LD_LIBRARY_PATH only at the start of a process; the wheels' `ros_wheels_bootstrapper.pth`, later in
the alphabet, therefore starts Python once more and passes on what ours has put there, so that no
restart of our own is needed and children inherit all of it.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from dposer_core.errors import ConfigError

# Set by the wheels' bootstrapper when it has restarted Python (ros-wheels-bootstrapper 0.1).
BOOTSTRAP_GUARD = '_ROS_WHEELS_BOOTSTRAP_COMPLETE'

# Sorts before `ros_wheels_bootstrapper.pth`.
PTH_NAME = 'dposer_ros_messages.pth'

# A `.pth` file holds folders for sys.path and lines that begin with `import`. The guard is lifted
# when an older parent process already restarted without knowing our folder, so it happens again.
PTH_TEMPLATE = """\
{checkout}
{site_packages}
import os; path = os.environ.get('LD_LIBRARY_PATH', ''); \
{lib!r} in path.split(':') or (os.environ.update(LD_LIBRARY_PATH={lib!r} + ':' + path), \
os.environ.pop({guard!r}, None)); \
path = os.environ.get('AMENT_PREFIX_PATH', ''); \
{prefix!r} in path.split(':') or os.environ.update(\
AMENT_PREFIX_PATH=(path and path + ':') + {prefix!r} + ':' + {python_prefix!r}); del path
"""

MAX_DOMAIN_ID = 232

CHECKOUT = Path(__file__).resolve().parent.parent


def message_prefix() -> Path:
    """The install prefix of `make messages`: `install/` beside this package.

    It is `install-jazzy/` for the Python of `.venv-jazzy/`, which `make DISTRO=jazzy` makes.
    """
    venv = Path(sys.prefix).resolve()
    of_distribution = venv.parent == CHECKOUT and venv.name.startswith('.venv-')
    return CHECKOUT / (venv.name.replace('.venv', 'install') if of_distribution else 'install')


def ros_environment(
    prefix: Path | None = None, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """A copy of `environ` in which a child process of any Python finds our messages and our code.

    Children of a Python of the virtual environment need nothing of this; it serves a shell, and
    programs that are not Python.

    Args:
        prefix: install prefix of the messages; default `message_prefix()`. If nothing is installed
            there (a robot with its sourced ROS 2), the environment is returned as it is.
        environ: default `os.environ`.
    """
    env = dict(os.environ if environ is None else environ)
    prefix = message_prefix() if prefix is None else Path(prefix)
    if not (prefix / 'share' / 'dposer_ros').is_dir():
        return env
    _prepend(env, 'PYTHONPATH', _site_packages(prefix))
    _prepend(env, 'PYTHONPATH', CHECKOUT)
    if os.path.isdir(os.path.join(sys.prefix, 'share', 'rclpy')):  # the pip wheels
        _prepend(env, 'LD_LIBRARY_PATH', Path(sys.prefix) / 'lib')
        _prepend(env, 'AMENT_PREFIX_PATH', sys.prefix)
    _prepend(env, 'LD_LIBRARY_PATH', prefix / 'lib')
    _prepend(env, 'AMENT_PREFIX_PATH', prefix)
    return env


def require_messages() -> None:
    """Raise ConfigError with the remedy if our messages cannot be loaded in this process."""
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f'rclpy cannot be imported ({error}): source /opt/ros/<distro>/setup.bash, or run '
            '`make setup` and use .venv/bin/python'
        ) from error
    try:
        from dposer_ros.msg import KeypointFrame

        type(KeypointFrame).__import_type_support__()
    except Exception as error:  # the generated code has exception types of its own
        raise ConfigError(
            f'the messages cannot be loaded ({error}): run `make messages`, or `colcon build` and '
            'source its setup.bash'
        ) from error


def domain_id(environ: Mapping[str, str] | None = None) -> int:
    """The ROS domain of this process, 0 if ROS_DOMAIN_ID is not set.

    Raises:
        ConfigError: not a number from 0 to 232. A domain above that has no UDP ports left (RTPS
            maps domain d to ports from 7400 + 250 d on).
    """
    text = (os.environ if environ is None else environ).get('ROS_DOMAIN_ID', '') or '0'
    if not text.isdecimal() or int(text) > MAX_DOMAIN_ID:
        raise ConfigError(
            f"ROS_DOMAIN_ID='{text}': must be a whole number from 0 to {MAX_DOMAIN_ID} "
            '(on Linux best below 102, where no other program is given the ports)'
        )
    return int(text)


def write_pth(prefix: Path, folder: Path) -> Path:
    """Write the `.pth` file that makes the messages in `prefix` known to the Python of `folder`.

    Args:
        prefix: install prefix of the messages.
        folder: the `site-packages` of the virtual environment.
    """
    text = PTH_TEMPLATE.format(
        checkout=CHECKOUT,
        site_packages=_site_packages(prefix),
        lib=str(prefix / 'lib'),
        guard=BOOTSTRAP_GUARD,
        prefix=str(prefix),
        python_prefix=sys.prefix,
    )
    path = folder / PTH_NAME
    temporary = path.with_suffix('.tmp')  # every Python that starts reads each .pth file
    temporary.write_text(text)
    temporary.replace(path)
    return path


def _site_packages(prefix: Path) -> Path:
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    return prefix / 'lib' / version / 'site-packages'


def _prepend(env: dict[str, str], name: str, entry: str | Path) -> None:
    kept = [part for part in env.get(name, '').split(os.pathsep) if part and part != str(entry)]
    env[name] = os.pathsep.join([str(entry), *kept])


def main() -> None:
    """`python -m dposer_ros.environment`, the last step of `make messages`."""
    import sysconfig

    print(write_pth(message_prefix(), Path(sysconfig.get_path('purelib'))))


if __name__ == '__main__':
    main()
