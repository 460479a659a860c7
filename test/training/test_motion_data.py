"""Stretches of motion: none that is held out, none across a cut."""

import json

import numpy as np
import pytest
import torch

from training import motion_data
from training.data.archives import HELD_OUT, TRAINING_SOURCES
from training.data.motion import SmplxMotion
from training.motion_data import MotionData, load_runs, plausible_runs

PACKED = {'report': np.array(json.dumps({'left_out': {HELD_OUT: ['walking_1']}}))}


def clip(name: str, subject: str, frames: int = 6, value: float = 0.1) -> SmplxMotion:
    pose = np.full((frames, 55, 3), value)
    return SmplxMotion(name, subject, 'cmu_bvh', 30.0, pose, np.zeros((frames, 3)))


@pytest.fixture
def archives(monkeypatch) -> list[SmplxMotion]:
    """The clips of the first source; the others are empty."""
    clips = [
        clip('01_01', 'cmu01', value=0.1),
        clip('02_01', 'cmu02', value=0.2),
        clip('walking_1', 'expmap_walking', value=0.3),
        clip('walking_2', 'expmap_walking', 9, value=0.4),
    ]

    def read(source, root):
        return iter(clips if source == TRAINING_SOURCES[0] else [])

    monkeypatch.setattr(motion_data, 'read_clips', read)
    monkeypatch.setattr(motion_data, 'retarget', lambda motion: motion)
    return clips


def test_held_out_subjects_and_clips_that_repeat_them_are_left_out(archives, tmp_path):
    runs = load_runs(PACKED, tmp_path, tmp_path)
    assert [len(run) for run in runs] == [6, 9]
    assert [round(float(run.mean()), 4) for run in runs] == [0.1, 0.4]


def test_motions_are_read_once_and_anew_when_the_packed_file_changes(archives, tmp_path):
    load_runs(PACKED, tmp_path, tmp_path)
    archives.pop()
    assert len(load_runs(PACKED, tmp_path, tmp_path)) == 2
    other = {'report': np.array(json.dumps({'left_out': {HELD_OUT: []}}))}
    assert len(load_runs(other, tmp_path, tmp_path)) == 2  # 01_01 and walking_1


def test_impossible_frames_cut_a_clip():
    motion = clip('a', 'b', 9)
    motion.pose_rotvec[4, 3] = [2.0, 0.0, 0.0]  # lower back, 115 degrees
    assert [len(run) for run in plausible_runs(motion)] == [4, 4]


def test_stretches_never_cross_a_cut_and_reach_both_ends(archives, tmp_path):
    data = MotionData(PACKED, tmp_path, tmp_path)
    counted = torch.arange(20.0)[:, None, None] * torch.ones(21, 3)
    data._runs = list(counted.flatten(1).split([9, 3, 8]))
    rows = data.batch(400, 5, torch.Generator().manual_seed(0))[:, :, 0]  # x keeps its sign
    assert bool((rows.diff(dim=1) == 1).all())
    first = set(rows[:, 0].int().tolist())
    assert first == {0, 1, 2, 3, 4, 12, 13, 14, 15}  # the run of three is too short


def test_half_of_the_stretches_are_mirrored_as_a_whole(archives, tmp_path):
    rows = MotionData(PACKED, tmp_path, tmp_path).batch(200, 4, torch.Generator().manual_seed(0))
    is_mirrored = rows.reshape(200, 4, 21, 3)[..., 1] < 0
    assert bool((is_mirrored.flatten(1).all(1) | ~is_mirrored.flatten(1).any(1)).all())
    assert 60 < int(is_mirrored[:, 0, 0].sum()) < 140


def test_held_out_excerpts_are_of_held_out_subjects(archives, tmp_path):
    assert MotionData(PACKED, tmp_path, tmp_path).heldout.shape == (20, 60, 63)
