"""Facts of the conversion to SMPL-X rotations, on made-up motion and, where present, on CMU's."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dposer_core.errors import MediaError
from dposer_core.skeleton import JOINT_INDEX
from training.data.archives import archive_folder
from training.data.asf_amc import read_amc, read_asf
from training.data.motion import SourceMotion
from training.retarget import Corrections, mirror, retarget

_BONES = ('root', 'thorax', 'head') + tuple(
    side + bone
    for side in 'lr'
    for bone in ('femur', 'tibia', 'foot', 'humerus', 'radius', 'hand')
)
_PLAIN = Corrections(collar_share=0.0, elbow_hinge=0.0, knee_flexion=0.0, wrist_bias_share=0.0)


def _at_rest(num_frames: int = 9) -> SourceMotion:
    """The rest pose of an Acclaim skeleton: T-pose with legs spread by 20 degrees."""
    leg = np.array([np.sin(np.radians(20)), -np.cos(np.radians(20)), 0.0])
    rest = {
        f'{s}{bone}': leg * [k, 1, 1]
        for s, k in (('l', 1), ('r', -1))
        for bone in ('femur', 'tibia')
    }
    rest |= {
        f'{s}{bone}': np.array([k, 0, 0])
        for s, k in (('l', 1.0), ('r', -1.0))
        for bone in ('humerus', 'radius')
    }
    world = {bone: np.tile(np.eye(3), (num_frames, 1, 1)) for bone in _BONES}
    return SourceMotion(
        'rest', 'nobody', 'cmu_asf_amc', 120.0, np.zeros((num_frames, 3)), world, rest
    )


def _turned(motion: SourceMotion, bones: tuple[str, ...], rotation: Rotation) -> SourceMotion:
    world = dict(motion.world_rotmat)
    for bone in bones:
        world[bone] = rotation.as_matrix() @ world[bone]
    return SourceMotion(
        motion.name,
        motion.subject,
        motion.source,
        motion.fps,
        motion.pelvis,
        world,
        motion.rest_direction,
    )


def test_rest_pose_turns_only_the_spread_legs() -> None:
    pose = retarget(_at_rest(), _PLAIN).pose_rotvec
    expected = np.zeros((55, 3))
    expected[JOINT_INDEX['left_hip'], 2] = np.radians(18.0)  # 20 less the 2 of SMPL-X's own legs
    expected[JOINT_INDEX['right_hip'], 2] = -np.radians(18.0)
    np.testing.assert_allclose(pose[0], expected, atol=1e-9)


def test_120_hz_becomes_30() -> None:
    assert retarget(_at_rest(121)).pose_rotvec.shape == (31, 55, 3)


def test_limb_directions_are_preserved() -> None:
    swing = Rotation.from_rotvec([0.3, -0.5, 0.7])
    motion = _turned(_at_rest(), ('lhumerus', 'lradius', 'lhand'), swing)
    pose = retarget(motion).pose_rotvec[0]
    world = Rotation.identity()
    for name in ('spine3', 'left_collar', 'left_shoulder'):
        world = world * Rotation.from_rotvec(pose[JOINT_INDEX[name]])
    np.testing.assert_allclose(world.apply([1, 0, 0]), swing.apply([1, 0, 0]), atol=1e-9)


def test_collar_takes_its_share_of_the_arm_swing() -> None:
    down = Rotation.from_euler('z', -80, degrees=True)
    motion = _turned(_at_rest(), ('lhumerus', 'lradius', 'lhand'), down)
    pose = np.degrees(retarget(motion).pose_rotvec[0])
    assert pose[JOINT_INDEX['left_collar'], 2] == pytest.approx(-80 * 0.27)


def test_mirror_twice_changes_nothing() -> None:
    motion = retarget(_turned(_at_rest(), ('lhumerus',), Rotation.from_rotvec([0.1, 0.2, 0.3])))
    np.testing.assert_allclose(mirror(mirror(motion)).pose_rotvec, motion.pose_rotvec)


def test_mirrored_left_arm_is_the_right_arm() -> None:
    left = ('lhumerus', 'lradius', 'lhand')
    right = ('rhumerus', 'rradius', 'rhand')
    turn = Rotation.from_rotvec([0.2, -0.4, -0.8])
    other = Rotation.from_rotvec([0.2, 0.4, 0.8])
    a = mirror(retarget(_turned(_at_rest(), left, turn))).pose_rotvec
    b = retarget(_turned(_at_rest(), right, other)).pose_rotvec
    np.testing.assert_allclose(a, b, atol=1e-9)


def test_random_corrections_keep_the_chest_and_the_head() -> None:
    bend = Rotation.from_euler('x', 40, degrees=True)
    motion = _turned(_turned(_at_rest(), ('thorax', 'head'), bend), ('head',), bend)
    pose = retarget(motion, Corrections.random(np.random.default_rng(0))).pose_rotvec[0]
    spine = sum(pose[JOINT_INDEX[name], 0] for name in ('spine1', 'spine2', 'spine3'))
    head = sum(pose[JOINT_INDEX[name], 0] for name in ('neck', 'head'))
    np.testing.assert_allclose(np.degrees([spine, head]), [40.0, 40.0], atol=1e-6)


def test_walk_of_cmu_02_has_the_angles_of_a_walk() -> None:
    try:
        folder = archive_folder('cmu_asf_amc')
    except MediaError as error:
        pytest.skip(str(error))
    amc = next(folder.rglob('02_01.amc'))
    motion = retarget(read_amc(amc, read_asf(amc.with_name('02.asf')), 'cmu02', 'cmu_asf_amc'))
    degrees = np.degrees(motion.pose_rotvec)

    def extremes(name: str, axis: int) -> tuple[float, float]:
        values = degrees[:, JOINT_INDEX[name], axis]
        return values.min(), values.max()

    # Known from an independent prototype: hip -31..21, knee 9..73 with 8 degrees of constant
    # flexion that we halve between thigh and shin; so hips +4, knees -8.
    np.testing.assert_allclose(extremes('left_hip', 0), (-27, 25), atol=4)
    np.testing.assert_allclose(extremes('left_knee', 0), (1, 65), atol=4)
    arm = degrees[:, JOINT_INDEX['left_collar'], 2] + degrees[:, JOINT_INDEX['left_shoulder'], 2]
    assert arm.mean() < -64  # arms hang: collar and shoulder together
    assert degrees[:, JOINT_INDEX['left_elbow'], 1].mean() == pytest.approx(-32, abs=5)
