"""How `python -m training.<module>` ends when its user has made a mistake."""

import sys
from collections.abc import Callable

from dposer_core.errors import DPoserError


def run_script(main: Callable[[], None]) -> None:
    """Run `main`; what its user can mend is one line on stderr and exit status 2."""
    try:
        main()
    except DPoserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
