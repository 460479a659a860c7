"""Sheets show what they are given."""

import numpy as np

from dposer_core.body_model import load_body
from dposer_core.render import BACKGROUND
from training.pictures import face_sheet, hand_sheet


def test_each_hand_has_two_views_that_show_its_pose() -> None:
    fist = np.zeros((1, 5, 3, 3))
    fist[:, :4, :, 2] = 1.2
    sheet = hand_sheet(
        load_body(''), np.concatenate([fist.reshape(1, 45) * 0, fist.reshape(1, 45)]), 2, 64
    )
    assert sheet.shape == (64, 4 * 64, 3)
    drawn = (sheet != BACKGROUND).any(-1)
    area = [drawn[:, 64 * k : 64 * (k + 1)].sum() for k in range(4)]
    assert area[0] > 1.2 * area[2] > 0  # the flat hand shows more of itself than the fist
    assert area[1] > 0 and area[3] > 0


def test_open_jaw_changes_the_face() -> None:
    faces = np.zeros((2, 13))
    faces[1, 0] = 0.4
    sheet = face_sheet(load_body(''), faces, 2, 64)
    closed, opened = sheet[:, :64].astype(int), sheet[:, 64:].astype(int)
    assert np.abs(opened - closed)[32:].max() > 40
    assert np.abs(opened - closed)[:20].max() < 20  # the brow does not move
