"""`python -m dposer_ros.cli`: the command line where the `dposer` script is not installed."""

from dposer_ros.cli import main

main()
