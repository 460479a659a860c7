"""The tables' figures: against the official evaluation on made-up points, and by hand."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dposer_core import evaluators
from dposer_core.errors import ConfigError
from dposer_core.tasks.completion import BODY_PARTS

PARITY = Path(os.environ.get('DPOSER_PARITY', Path(__file__).parents[3] / 'shared' / 'parity'))
PER_CALL = 1e-5  # relative, as the golden files' notes allow for one call
HAND_VERTICES, FACE_VERTICES, FACE_JOINTS = 778, 5023, 73  # of MANO and FLAME
HIDDEN = (2, 3, 7)  # what the golden run hides, found from its figures
needs_golden = pytest.mark.skipif(not PARITY.is_dir(), reason=f'golden files not at {PARITY}')


@pytest.fixture(scope='module')
def golden() -> dict[str, np.ndarray]:
    with np.load(PARITY / 'evalers.npz') as file:
        return dict(file)


def points(golden: dict, pose: np.ndarray, kind: str, count: int, scale: float = 0.01):
    """(..., count, 3) of the golden run's body, which moves each point along its own direction."""
    weights = golden['Wf' if pose.shape[-1] == 203 else 'W'][: pose.shape[-1]]
    base = golden['bv' if kind == 's' else 'bj'][:count].astype(float)
    return base + scale * golden[kind][:count] * (pose.astype(float) @ weights)[..., None, :]


@needs_golden
@pytest.mark.parametrize('part', ['left_leg', 'legs', 'arms', 'trunk', 'hands', 'left_arm'])
def test_joints_of_a_completed_part(golden, part):
    joints = [joint + 1 for joint in BODY_PARTS[{'trunk': 'torso'}.get(part, part)]]
    found = evaluators.hypotheses_mm(
        points(golden, golden['pred'], 'sj', 127), points(golden, golden['gt'], 'sj', 127), joints
    )
    for statistic in ('best', 'mean', 'std'):
        expected = golden[f'body_{part}/mpjpe_{statistic}']
        assert getattr(found, statistic) == pytest.approx(expected, rel=PER_CALL)


@needs_golden
@pytest.mark.parametrize(('kind', 'name', 'count'), [('s', 'mpvpe', 10475), ('sj', 'mpjpe', 127)])
def test_all_points_of_completed_bodies(golden, kind, name, count):
    found = evaluators.hypotheses_mm(
        points(golden, golden['pred'], kind, count), points(golden, golden['gt'], kind, count)
    )
    for statistic in ('best', 'mean', 'std'):
        expected = golden[f'body_None/{name}_{statistic}']
        assert getattr(found, statistic) == pytest.approx(expected, rel=PER_CALL)


@needs_golden
def test_hand_with_hidden_points(golden):
    found, truth = golden['pred'][:, 0, :45], golden['gt'][:, :45]
    # The golden run's 21 points move twice as far as its 16 joints.
    values = evaluators.visible_hidden_mm(
        points(golden, found, 'sj', 21, 0.02), points(golden, truth, 'sj', 21, 0.02), shown(21)
    )
    names = {'all': 'all', 'visible': 'visible', 'hidden': 'masked'}
    for key, official in names.items():
        expected = golden[f'hand_masked/mpjpe_{official}']
        assert values[key] == pytest.approx(expected, rel=PER_CALL)
    for kind, key, count in (('s', 'mpvpe', HAND_VERTICES), ('sj', 'mpjpe_all', 16)):
        error = evaluators.mean_mm(
            points(golden, found, kind, count), points(golden, truth, kind, count)
        )
        assert error == pytest.approx(golden[f'hand_noisy/{key}'], rel=PER_CALL)


@needs_golden
def test_face_with_hidden_points(golden):
    found, truth = golden['fo'], golden['fg']
    values = evaluators.visible_hidden_mm(
        points(golden, found, 'sj', FACE_JOINTS), points(golden, truth, 'sj', FACE_JOINTS),
        shown(FACE_JOINTS),
    )  # fmt: skip
    for key, official in {'all': 'all', 'visible': 'visible', 'hidden': 'masked'}.items():
        expected = golden[f'face_masked/mpjpe_{official}']
        assert values[key] == pytest.approx(expected, rel=PER_CALL)
    vertices = [points(golden, pose, 's', FACE_VERTICES) for pose in (found, truth)]
    assert evaluators.mean_mm(*vertices) == pytest.approx(golden['face_noisy/mpvpe'], rel=PER_CALL)


def shown(count: int) -> np.ndarray:
    return ~np.isin(np.arange(count), HIDDEN)


@needs_golden
def test_body_recovery_as_on_ehf(golden):
    turn = Rotation.from_rotvec(evaluators.EHF_ROTVEC).as_matrix()
    # The official matrix comes from a single-precision conversion.
    assert turn == pytest.approx(golden['ehf_R'], abs=3e-6)
    regressor = golden['ehf_Jreg'][:22]
    truth = regressor @ (golden['ehf_gt'] @ turn.T)
    found = evaluators.body_recovery_mm(regressor @ golden['ehf_verts'], truth)
    assert found['PA-MPJPE'] == pytest.approx(golden['ehf_pa'], rel=PER_CALL)
    assert found['MPJPE'] == pytest.approx(golden['ehf_mpjpe'], rel=PER_CALL)


@needs_golden
def test_wholebody_recovery_as_on_arctic(golden):
    regions = evaluators.WholeBodyRegions(
        left_hand=slice(10, 30), right_hand=slice(30, 50), face=slice(50, 60),
        joints=golden['ehf_Jreg'], body14=golden['ar_j14'], left_hand21=golden['ar_hrl'],
        right_hand21=golden['ar_hrr'],
    )  # fmt: skip
    found = evaluators.wholebody_recovery_mm(golden['ehf_verts'], golden['ehf_gt'], regions)
    for key, value in found.items():
        expected = golden[f'arctic/{key.lower().replace("-", "_").replace(" ", "_")}']
        assert value == pytest.approx(expected, rel=PER_CALL), key


def test_without_hidden_points_there_is_no_figure_of_them():
    found = evaluators.visible_hidden_mm(np.zeros((2, 4, 3)), np.ones((2, 4, 3)), np.ones(4, bool))
    assert set(found) == {'all', 'visible'}
    assert found['all'] == pytest.approx([1000 * 3**0.5] * 2)


def test_points_of_another_number_are_named():
    with pytest.raises(ConfigError, match=r'\(2, 5, 3\) against \(2, 4, 3\)'):
        evaluators.mean_mm(np.zeros((2, 5, 3)), np.zeros((2, 4, 3)))
