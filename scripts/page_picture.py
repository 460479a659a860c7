"""A picture of a web page with WebGL, from headless Chromium, without a graphics card.

`python scripts/page_picture.py URL FILE.png [--text TEXT] [--size WIDTHxHEIGHT]` waits until the
page shows the text and, for a while, until nothing moves; it keeps few colours, for documents.

Speaks the DevTools protocol over `websockets`, which viser brings: no browser driver is needed.
"""

import argparse
import base64
import contextlib
import ctypes
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from websockets.sync.client import connect

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
_FLAGS = (
    '--headless', '--no-sandbox', '--no-first-run', '--disable-quic', '--disable-sync',
    '--disable-background-networking', '--disable-component-update', '--disable-extensions',
    '--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--ignore-gpu-blocklist',
    '--remote-debugging-port=0', '--hide-scrollbars',
)  # fmt: skip
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: after the fork it is too late
_STILL_SECONDS = 1.5  # longer than a frame takes without a graphics card
# What viser says to a browser without a graphics card.
_CLOSE_NOTES = (
    "document.querySelectorAll('[class*=Notification-closeButton]').forEach(b => b.click())"
)
_START_SECONDS = 30.0


def chromium() -> str | None:
    """Path of the browser; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page of the browser.

    Args:
        address: WebSocket of its debugger.
    """

    def __init__(self, address: str) -> None:
        self._socket = connect(address, max_size=None, open_timeout=_START_SECONDS)
        self._numbers = itertools.count(1)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({'id': number, 'method': method, 'params': parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60.0))
            if answer.get('id') == number:
                if 'error' in answer:
                    raise RuntimeError(f'{method}: {answer["error"]}')
                return answer['result']

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        result = self.call('Runtime.evaluate', expression=expression, returnByValue=True)
        return result['result'].get('value')

    def wait_for(self, expression: str, seconds: float = 60.0) -> None:
        """Until a JavaScript expression is true.

        Raises:
            TimeoutError: it never was.
        """
        deadline = time.monotonic() + seconds
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                raise TimeoutError(f'{expression} was not true within {seconds:.0f} s')
            time.sleep(0.2)

    def close_notes(self) -> None:
        """Close what viser says about the missing graphics card."""
        self.evaluate(_CLOSE_NOTES)

    def settle(self, seconds: float = 60.0) -> None:
        """Wait for a still picture, without notes.

        Raises:
            TimeoutError: it goes on changing.
        """
        deadline, before = time.monotonic() + seconds, b''
        while (now := self.picture()) != before:
            if time.monotonic() > deadline:
                raise TimeoutError(f'the page was not still within {seconds:.0f} s')
            self.close_notes()
            before = now
            time.sleep(_STILL_SECONDS)

    def picture(self) -> bytes:
        """What the page looks like, PNG."""
        return base64.b64decode(self.call('Page.captureScreenshot', format='png')['data'])

    def close(self) -> None:
        """Leave the debugger."""
        self._socket.close()


@contextlib.contextmanager
def opened(url: str, size: tuple[int, int] = (1280, 720)) -> Iterator[Tab]:
    """The page in a browser of its own, which ends with the context."""
    browser = chromium()
    if browser is None:
        raise RuntimeError(
            f'none of {", ".join(NAMES)} is installed (Debian: apt install chromium)'
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [browser, *_FLAGS, f'--user-data-dir={folder}']
        command += [f'--window-size={size[0]},{size[1]}', 'about:blank']
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        try:
            tab = Tab(_debugger(Path(folder), process))
            tab.call(
                'Emulation.setDeviceMetricsOverride',
                width=size[0], height=size[1], deviceScaleFactor=1, mobile=False,
            )  # fmt: skip
            tab.call('Page.navigate', url=url)
            yield tab
            tab.close()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _end_with_parent() -> None:
    """Whoever kills us must not leave a browser that goes on drawing."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _debugger(folder: Path, process: subprocess.Popen) -> str:
    """WebSocket address of the first page; the browser writes its port into its folder."""
    port_file = folder / 'DevToolsActivePort'
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if port_file.exists() and port_file.read_text().count('\n'):
            port = port_file.read_text().splitlines()[0]
            with urllib.request.urlopen(f'http://127.0.0.1:{port}/json', timeout=10) as answer:
                pages = [p for p in json.load(answer) if p['type'] == 'page']
            if pages:
                return pages[0]['webSocketDebuggerUrl']
        time.sleep(0.1)
    raise RuntimeError('the browser did not start')


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('url')
    parser.add_argument('file', type=Path)
    parser.add_argument('--text', default='', help='of the page, to wait for')
    parser.add_argument('--patience', type=float, default=30.0, help='s, until nothing moves')
    parser.add_argument('--size', default='1280x720')
    options = parser.parse_args()
    width, height = map(int, options.size.split('x'))
    with opened(options.url, (width, height)) as tab:
        tab.wait_for(f'document.body.innerText.includes({json.dumps(options.text)})')
        try:
            tab.settle(options.patience)
        except TimeoutError as moving:
            print(f'{moving}; taken as it is')
        picture = tab.picture()
    temporary = options.file.with_suffix('.tmp')
    few_colours = (
        Image.open(io.BytesIO(picture))
        .convert('RGB')
        .quantize(256, method=Image.Quantize.FASTOCTREE)
    )
    few_colours.save(temporary, format='png', optimize=True)
    temporary.replace(options.file)


if __name__ == '__main__':
    main()
