"""What consumers want of a person besides the state: named hand poses, capsules, keypoints.

Pure functions from a fit result to messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Point, Pose, Vector3
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from dposer_core import evidence, keypoints, skeleton
from dposer_core.state import FitResult, Source
from dposer_ros.conversions import UPPER
from dposer_ros.msg import Capsule, CapsuleArray, KeypointFrame, NamedPoses, PersonKeypoints

# --- which joint stands for a keypoint -----------------------------------------------------------


def _point_joints() -> np.ndarray:
    """(133,) joint whose source and sigma hold for each keypoint; a fingertip takes the last."""
    joints = np.full(keypoints.NUM_POINTS, skeleton.JOINT_INDEX['head'])
    for joint, points in evidence.OWN_POINTS.items():
        if joint != 0:  # the pelvis shares its points with the hips
            joints[points] = joint
    for side in ('left', 'right'):
        first = keypoints.POINT_INDEX[f'{side}_hand_root']
        for offset, joint in enumerate(skeleton.hand21_joints(side)):
            joints[first + offset] = joint if joint >= 0 else joints[first + offset - 1]
    for side in ('left', 'right'):
        joints[keypoints.POINT_INDEX[f'{side}_heel']] = skeleton.JOINT_INDEX[f'{side}_ankle']
    return joints


POINT_JOINTS = _point_joints()


# --- completed keypoints -------------------------------------------------------------------------


def completed_keypoints(results: Sequence[FitResult], header: Header) -> KeypointFrame:
    """All 133 points of everybody, metres, measured or not.

    The confidence is that of a measurement: 1 where the frame showed the joint, 0 where the point
    is the prior's or a prediction, so that nobody takes a completion for evidence. How good it is
    says the covariance.
    """
    msg = KeypointFrame(
        header=header,
        layout='coco_wholebody133',
        dim=KeypointFrame.DIM_3D,
        unit=KeypointFrame.UNIT_METRE,
    )
    msg.people = [_completed_person(result) for result in results]
    return msg


def _completed_person(result: FitResult) -> PersonKeypoints:
    state = result.state
    covariance = state.position_covariance[POINT_JOINTS][:, *UPPER]
    person = PersonKeypoints(track_id=result.body_id, score=float(result.confidence))
    person.bbox = [float('nan')] * 4
    person.points = state.landmarks.astype(np.float32).ravel().tolist()
    person.confidence = (state.source[POINT_JOINTS] == Source.OBSERVED).astype(float).tolist()
    person.covariance = covariance.astype(np.float32).ravel().tolist()
    return person


# --- hands by the names of OpenXR ----------------------------------------------------------------

_THUMB = ('THUMB_METACARPAL', 'THUMB_PROXIMAL', 'THUMB_DISTAL', 'THUMB_TIP')
_FINGER = ('METACARPAL', 'PROXIMAL', 'INTERMEDIATE', 'DISTAL', 'TIP')
_FINGERS = ('INDEX', 'MIDDLE', 'RING', 'LITTLE')
_HAND_NAMES = ('WRIST', *_THUMB, *(f'{f}_{j}' for f in _FINGERS for j in _FINGER))
POSE_NAMES = [f'{side}_{name}' for side in ('left', 'right') for name in _HAND_NAMES]
"""The 2 * 25 names of NamedPoses."""

# OpenXR's metacarpals begin near the wrist, where the hub has no point.
_NO_LENGTH = 1e-9  # m and m^2, below which there is no direction
_METACARPAL = 0.25  # of the way from the wrist to the knuckle


def hand_poses(result: FitResult, header: Header) -> NamedPoses:
    """Both hands of one person; a joint is valid where the frame showed it."""
    msg = NamedPoses(header=header, name=POSE_NAMES)
    for side in ('left', 'right'):
        first = keypoints.POINT_INDEX[f'{side}_hand_root']
        places, rows = _openxr_places(result.state.landmarks[first : first + 21])
        quats = _openxr_rotations(places, side)
        for place, quat in zip(places.tolist(), quats.tolist(), strict=True):
            msg.pose.append(_pose(place, quat))
        sources = result.state.source[POINT_JOINTS[first + rows]]
        msg.is_valid += [bool(valid) for valid in sources == Source.OBSERVED]
    return msg


def _openxr_places(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (25, 3) from the 21 hand points, and (25,) the hand point each stands for."""
    wrist = points[0]
    places, rows = [wrist, *points[1:5]], [0, 1, 2, 3, 4]
    for finger in range(4):
        knuckle = 5 + 4 * finger
        places.append(wrist + _METACARPAL * (points[knuckle] - wrist))
        places += list(points[knuckle : knuckle + 4])
        rows += [knuckle, *range(knuckle, knuckle + 4)]
    return np.array(places), np.array(rows)


def _openxr_rotations(places: np.ndarray, side: str) -> np.ndarray:
    """(25, 4) x, y, z, w: -z to the next joint, y out of the back of the hand."""
    wrist, index, little = places[0], places[6], places[21]  # proximal joints
    back = np.cross(index - wrist, little - wrist) * (1.0 if side == 'left' else -1.0)
    ahead = np.zeros_like(places)
    ahead[0] = places[11] - wrist  # to the middle finger
    for first, count in ((1, 4), *((5 + 5 * finger, 5) for finger in range(4))):
        steps = np.diff(places[first : first + count], axis=0)
        ahead[first : first + count] = np.concatenate([steps, steps[-1:]])  # a tip goes on
    z = -_unit(ahead)
    x = np.cross(np.broadcast_to(back, z.shape), z)
    is_flat = np.linalg.norm(x, axis=1) < _NO_LENGTH  # points in one line: any x will do
    x[is_flat] = np.cross(z[is_flat], np.eye(3)[np.abs(z[is_flat]).argmin(axis=1)])
    x = _unit(x)
    return Rotation.from_matrix(np.stack([x, np.cross(z, x), z], axis=-1)).as_quat()


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; where there is no direction, some direction."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(
        lengths > _NO_LENGTH, vectors / np.maximum(lengths, _NO_LENGTH), (1.0, 0.0, 0.0)
    )


def _pose(place: Sequence[float], quat: Sequence[float]) -> Pose:
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = place
    q = pose.orientation
    q.x, q.y, q.z, q.w = quat
    return pose


# --- capsules ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Limb:
    """A capsule of a body whose rest joints extend over `_EXTENT`."""

    name: str
    start: int
    end: int
    radius_m: float
    beyond: float = 0.0
    """Share of its length by which it reaches beyond `end`."""


def _limbs() -> tuple[_Limb, ...]:
    index = skeleton.JOINT_INDEX
    limbs = [
        _Limb('abdomen', index['pelvis'], index['spine2'], 0.2),
        _Limb('chest', index['spine2'], index['neck'], 0.21),
        _Limb('hips', index['left_hip'], index['right_hip'], 0.15),
        _Limb('shoulders', index['left_shoulder'], index['right_shoulder'], 0.13),
        _Limb('head', index['neck'], index['head'], 0.14, 1.0),
    ]
    for side in ('left', 'right'):
        for name, start, end, radius, beyond in (
            ('upper_arm', 'shoulder', 'elbow', 0.085, 0.0),
            ('forearm', 'elbow', 'wrist', 0.06, 0.0),
            ('hand', 'wrist', 'middle1', 0.07, 1.0),
            ('thumb', 'wrist', 'thumb3', 0.04, 0.5),
            ('thigh', 'hip', 'knee', 0.115, 0.0),
            ('shin', 'knee', 'ankle', 0.085, 0.0),
            ('foot', 'ankle', 'foot', 0.08, 0.5),
        ):
            first, last = index[f'{side}_{start}'], index[f'{side}_{end}']
            limbs.append(_Limb(f'{side}_{name}', first, last, radius, beyond))
    return tuple(limbs)


LIMBS = _limbs()
_EXTENT = 1.563  # m, from the lowest to the highest joint at rest, that the radii are for


def capsules(
    results: Sequence[FitResult], header: Header, rest_joints: Sequence[np.ndarray]
) -> CapsuleArray:
    """Everybody as capsules.

    Args:
        results: people of one frame.
        header: stamp and frame.
        rest_joints: (55, 3) m of each of them; radii grow with their height.
    """
    msg = CapsuleArray(header=header)
    for result, rest in zip(results, rest_joints, strict=True):
        scale = float(np.ptp(rest[:, 1])) / _EXTENT
        msg.capsules += [_capsule(limb, result, scale) for limb in LIMBS]
    return msg


def _capsule(limb: _Limb, result: FitResult, scale: float) -> Capsule:
    state, ends = result.state, [limb.start, limb.end]
    p0, p1 = state.joints[ends]
    p1 = p1 + limb.beyond * (p1 - p0)
    velocities = state.joint_velocities[ends]
    fastest = velocities[int(np.argmax(np.linalg.norm(velocities, axis=1)))]
    msg = Capsule(body_id=result.body_id, name=limb.name)
    msg.p0, msg.p1 = (Point(x=x, y=y, z=z) for x, y, z in (p0.tolist(), p1.tolist()))
    msg.velocity = Vector3(**dict(zip('xyz', fastest.tolist(), strict=True)))
    msg.radius_m = float(limb.radius_m * scale)
    msg.sigma_m = float(state.position_sigma[ends].max())
    msg.source = int(state.source[ends].max())
    return msg
