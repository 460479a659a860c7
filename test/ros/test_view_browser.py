"""`dposer view` as a browser shows it: the pixels of a screenshot."""

import importlib.util
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from dposer_core.skeleton import NUM_JOINTS
from dposer_core.state import Source

pytestmark = [pytest.mark.ros, pytest.mark.slow]
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


def test_the_browser_shows_the_body_and_in_orange_what_was_completed(body, tmp_path) -> None:  # noqa: F811
    if page_picture.chromium() is None:
        pytest.skip('no Chromium here: apt install chromium')
    seen = np.full(NUM_JOINTS, Source.OBSERVED, np.uint8)
    moments = [standing(body, source=HIDDEN_HAND), standing(body, 2 * 10**9, source=seen)]
    source = Recorded(moments, is_playing=False)
    page = Page(source, body, 'test', port=0)
    runner = threading.Thread(target=page.run)
    runner.start()
    try:
        with page_picture.opened(page.url, SIZE) as tab:
            tab.wait_for("document.body.innerText.includes('p0001 TRACKING')")
            pictures = []
            for frame, word in enumerate(('completed', 'observed')):
                source._slider.value = frame
                tab.wait_for(f"document.body.innerText.includes('left hand ■ {word}')")
                tab.settle()
                pictures.append(tab.picture())
    finally:
        page.close()
        runner.join()
    for number, picture in enumerate(pictures):
        (tmp_path / f'{number}.png').write_bytes(picture)
    (blue, orange), (blue_seen, orange_seen) = map(hues, pictures)
    print(f'blue {blue} and {blue_seen}, orange {orange} and {orange_seen} pixels')
    assert blue > 5_000 and blue_seen > blue  # a body, and a hand more of it
    assert orange > 100 and orange_seen < 20
