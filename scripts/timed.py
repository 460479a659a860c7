"""Run one step of `make setup`, print its duration and keep it in out/setup.json."""

import json
import subprocess
import sys
import time
from pathlib import Path

REPORT = Path(__file__).resolve().parent.parent / 'out' / 'setup.json'


def main() -> int:
    """`timed.py STEP COMMAND...`; the exit status is the command's."""
    step, command = sys.argv[1], sys.argv[2:]
    print(f'==> {step}', flush=True)
    start = time.monotonic()
    status = subprocess.run(command).returncode
    seconds = round(time.monotonic() - start, 1)
    if status != 0:
        print(f'==> {step} failed after {seconds} s', file=sys.stderr)
        return status
    print(f'==> {step}: {seconds} s', flush=True)
    report = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    report[step] = seconds
    REPORT.parent.mkdir(exist_ok=True)
    temporary = REPORT.with_suffix('.tmp')
    temporary.write_text(json.dumps(report, indent=2) + '\n')
    temporary.replace(REPORT)
    return 0


if __name__ == '__main__':
    sys.exit(main())
