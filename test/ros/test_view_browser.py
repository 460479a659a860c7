"""`dposer view` as a browser shows it: the pixels of a screenshot."""

import importlib.util
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from dposer_core.skeleton import NUM_JOINTS
from dposer_core.state import Source

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(600)]
pytest.importorskip('viser', reason='viser is not installed: pip install dposer_ros[view]')

from test_view import HIDDEN_HAND, body, standing  # noqa: E402, F401

from dposer_ros.viewer.page import Page  # noqa: E402
from dposer_ros.viewer.sources import Recorded  # noqa: E402

SCRIPT = Path(__file__).resolve().parents[2] / 'scripts' / 'page_picture.py'
SPEC = importlib.util.spec_from_file_location('page_picture', SCRIPT)
page_picture = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(page_picture)

SIZE = (1100, 600)
SCENE = (slice(None), slice(0, 750))  # left of the panel


def hues(picture: bytes) -> tuple[int, int]:
    """How many pixels of the scene are as blue as what was seen, and as orange as completions."""
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)[SCENE]
    hue, saturation, _ = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))  # hue in 2 degrees
    strong = saturation > 40
    return int((strong & (abs(hue - 105.0) < 10)).sum()), int((strong & (hue < 25)).sum())


def seen_when(tab, path: Path, condition) -> tuple[int, int]:
    """`hues` once they meet the condition; viser draws coarsely while the machine is busy."""
    deadline = time.monotonic() + 120.0
    while not condition(*(found := hues(picture := tab.picture()))):
        if time.monotonic() > deadline:
            path.write_bytes(picture)
            pytest.fail(f'blue and orange pixels: {found}; see {path}')
        tab.close_notes()
        time.sleep(0.5)
    return found


def test_the_browser_shows_the_body_and_in_orange_what_was_completed(body, tmp_path) -> None:  # noqa: F811
    if page_picture.chromium() is None:
        pytest.skip('no Chromium here: apt install chromium')
    seen = np.full(NUM_JOINTS, Source.OBSERVED, np.uint8)
    moments = [standing(body, source=HIDDEN_HAND), standing(body, 2 * 10**9, source=seen)]
    source = Recorded(moments, is_playing=False)
    page = Page(source, body, 'test', port=0)
    path = tmp_path / 'page.png'
    runner = threading.Thread(target=page.run)
    runner.start()
    try:
        with page_picture.opened(page.url, SIZE) as tab:
            tab.wait_for("document.body.innerText.includes('p0001 TRACKING')")
            blue, orange = seen_when(tab, path, lambda blue, orange: orange > 100 and blue > 5_000)
            tab.wait_for("document.body.innerText.includes('left hand ■ completed')")
            source._slider.value = 1
            tab.wait_for("document.body.innerText.includes('left hand ■ observed')")
            more_blue, _ = seen_when(tab, path, lambda blue, orange: orange < 20 and blue > 5_000)
    finally:
        page.close()
        runner.join()
    print(f'blue {blue} and {more_blue}, orange {orange} pixels')
    assert more_blue > blue  # by the hand
