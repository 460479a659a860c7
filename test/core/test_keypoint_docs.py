"""docs/KEYPOINTS.md says what the code does."""

from pathlib import Path

import numpy as np
import pytest

from dposer_core.json_keypoints import _ACCEPTED
from dposer_core.keypoints import LAYOUTS, NEUTRAL_CONFIDENCE, POINT_NAMES

PAGE = (Path(__file__).parents[2] / 'docs' / 'KEYPOINTS.md').read_text()
PARTS = {
    'body': slice(0, 17),
    'feet': slice(17, 23),
    'face': slice(23, 91),
    'left hand': slice(91, 112),
    'right hand': slice(112, 133),
}


def row(name: str) -> str:
    layout = LAYOUTS[name]
    sizes = ', '.join(str(n) for n in (len(layout.names), *layout.sizes))
    counts = [int(np.sum(layout.source[part] >= 0)) for part in PARTS.values()]
    origin = 'all coordinates 0' if layout.origin_is_absent else ''
    return f'| `{name}` | {sizes} | ' + ' | '.join(str(n or '') for n in counts) + f' | {origin} |'


@pytest.mark.parametrize('name', LAYOUTS)
def test_table_has_the_row_of_every_layout(name):
    assert row(name) in PAGE.splitlines(), row(name)


def test_hub_points_are_named_in_order():
    names = [POINT_NAMES[i] for i in (0, 16, 17, 22, 23, 90, 91, 111, 112, 132)]
    assert all(f'`{name}`' in PAGE for name in names)


def test_neutral_confidence_is_the_one_of_the_code():
    assert f'confidence {NEUTRAL_CONFIDENCE}' in PAGE


def test_every_accepted_dialect_is_described():
    for word in ('ViTPose', 'AlphaPose', 'MMPose', 'COCO-WholeBody', 'OpenPose', 'tfjs-models'):
        assert word in _ACCEPTED and word in PAGE
