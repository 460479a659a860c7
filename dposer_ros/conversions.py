"""Messages to core types and back: pure functions, no node, no clock, no publishing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Pose
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import Header

from dposer_core import keypoints, skeleton
from dposer_core.camera import PinholeCamera, Undistort, camera_from_info
from dposer_core.config import InputConfig
from dposer_core.errors import ObservationError
from dposer_core.mixed import put_beside
from dposer_core.observation import Observation
from dposer_core.state import BodyState, FitResult, Source
from dposer_core.state import FitStats as CoreFitStats
from dposer_core.turns import pelvis_angular_velocity
from dposer_ros import frames, urdf
from dposer_ros.msg import FitStats, HandState, KeypointFrame, PersonKeypoints, SmplxState
from dposer_ros.refusals import Refused

MAX_BAD_POINTS = 0.5  # share of unusable points above which a person is refused
_MIN_VARIANCE_RATIO = 1e-6  # smallest to largest axis of a covariance
MAX_CONFIDENCE = 2.0  # detectors exceed 1 a little; beyond this it is no confidence

UPPER = np.triu_indices(3)
"""Rows and columns of a (3, 3) covariance that messages carry, in their order."""

_WRISTS = tuple(skeleton.JOINT_INDEX[f'{side}_wrist'] for side in ('left', 'right'))
_ARMS = tuple(skeleton.ancestors(wrist) for wrist in _WRISTS)
_HAND_JOINTS = (skeleton.LEFT_HAND_JOINTS, skeleton.RIGHT_HAND_JOINTS)
_HAND_POINTS = tuple(
    slice(start, start + 21)
    for start in (
        keypoints.POINT_NAMES.index('left_hand_root'),
        keypoints.POINT_NAMES.index('right_hand_root'),
    )
)


def _hand_point_joints(side: str) -> np.ndarray:
    """(21,) joint that stands for each hand point; a fingertip takes the joint before it."""
    joints = skeleton.hand21_joints(side)
    return np.array([joints[i - 1] if joint < 0 else joint for i, joint in enumerate(joints)])


_HAND_POINT_JOINTS = (_hand_point_joints('left'), _hand_point_joints('right'))


# --- time ----------------------------------------------------------------------------------------


def ns_from_stamp(stamp) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def header_at(stamp_ns: int, frame_id: str) -> Header:
    """Header with this stamp and frame."""
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    return header


# --- in ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cameras:
    """What one CameraInfo says about raw and about rectified keypoints."""

    raw: tuple[PinholeCamera, Undistort]
    rectified: tuple[PinholeCamera, Undistort]
    frame_id: str = ''
    """Optical frame."""


def cameras_from_msg(info: CameraInfo) -> Cameras:
    """The cameras of a CameraInfo.

    Raises:
        ObservationError: not calibrated (K is 0), or a distortion model that is not known.
    """
    size = (info.width, info.height)
    raw = camera_from_info(info.k, info.d, info.distortion_model, *size)
    # A driver without rectification leaves P at zero: then K is all there is to know.
    projection = np.asarray(info.p).reshape(3, 4)[:, :3]
    matrix = projection.reshape(9) if projection[0, 0] > 0.0 else info.k
    return Cameras(raw, camera_from_info(matrix, (), '', *size), info.header.frame_id)


def observations_from_msg(
    msg: KeypointFrame, cameras: Cameras | None, config: InputConfig
) -> tuple[list[Observation], list[Refused]]:
    """The people of one message, and those that had to be left out.

    Args:
        msg: keypoints of a frame.
        cameras: needed for 2D keypoints.
        config: confidence threshold.

    Raises:
        Refused: nothing in the message can be used.
    """
    to_pixels = _check_frame(msg, cameras)
    observations, refused = [], []
    for person in msg.people:
        try:
            observations.append(_observation(person, msg, cameras, to_pixels, config))
        except Refused as refusal:
            refused.append(refusal)
    return observations, refused


def with_beside(
    observations: list[Observation],
    frame_id: str,
    beside: KeypointFrame,
    config: InputConfig,
) -> tuple[list[Observation], list[Refused]]:
    """The people of a 2D frame with the 3D points of another message put beside them.

    Args:
        observations: of the frame.
        frame_id: of the frame, optical.
        beside: 3D keypoints in that frame, of the same instant.
        config: confidence threshold.

    Raises:
        Refused: nothing in `beside` can be used.
    """
    if any(observation.dim != 2 for observation in observations):
        raise Refused('dim', '3D keypoints can stand beside 2D ones only; `keypoints` is in 3D')
    if beside.dim != KeypointFrame.DIM_3D:
        raise Refused('dim', f'dim {beside.dim} beside 2D keypoints: must be DIM_3D (3)')
    if beside.header.frame_id != frame_id:
        raise Refused(
            'frame',
            f"3D keypoints in frame '{beside.header.frame_id}' beside 2D ones in '{frame_id}': "
            'publish them in the optical frame of the camera',
        )
    others, refused = observations_from_msg(beside, None, config)
    joined, unclaimed = put_beside(observations, others)
    if unclaimed:
        reason = f'3D points of {unclaimed} people lie on nobody in the picture'
        refused.append(Refused('unclaimed', reason))
    return joined, refused


def _check_frame(msg: KeypointFrame, cameras: Cameras | None) -> np.ndarray:
    """Factor (dim,) that brings the message's points to pixels or metres; raises Refused."""
    try:
        keypoints.get_layout(msg.layout, msg.names)
    except ObservationError as error:
        raise Refused('layout', str(error)) from error
    if msg.dim == KeypointFrame.DIM_3D:
        if msg.unit != KeypointFrame.UNIT_METRE:
            raise Refused('unit', f'unit {msg.unit} of 3D keypoints: must be UNIT_METRE (2)')
        return np.ones(3)
    if msg.dim != KeypointFrame.DIM_2D:
        raise Refused('dim', f'dim {msg.dim}: must be DIM_2D (2) or DIM_3D (3)')
    if cameras is None:
        raise Refused('no_camera', '2D keypoints need a usable camera_info, none has come yet')
    camera = cameras.raw[0]
    for side, sent, known in (
        ('image_width', msg.image_width, camera.width),
        ('image_height', msg.image_height, camera.height),
    ):
        if sent and known and sent != known:
            raise Refused(
                'image_size',
                f'{side} of the keypoints is {sent}, that of camera_info {known}: publish a '
                'camera_info for the picture that the detector sees',
            )
    size = (msg.image_width or camera.width, msg.image_height or camera.height)
    if msg.unit == KeypointFrame.UNIT_PIXEL:
        return np.ones(2)
    if msg.unit != KeypointFrame.UNIT_NORMALIZED:
        raise Refused('unit', f'unit {msg.unit} of 2D keypoints: must be pixel or normalised')
    if 0 in size:
        raise Refused('unit', 'normalised keypoints need image_width and image_height')
    return np.array(size, dtype=np.float64)


def _observation(
    person: PersonKeypoints,
    msg: KeypointFrame,
    cameras: Cameras | None,
    to_pixels: np.ndarray,
    config: InputConfig,
) -> Observation:
    points, confidence, sigma = _usable_points(person, msg.dim)
    names = msg.names or None
    try:
        points, confidence = keypoints.to_hub(points * to_pixels, confidence, msg.layout, names)
        if sigma is not None:
            sigma = _in_hub(sigma, to_pixels, keypoints.get_layout(msg.layout, names))
        if msg.mirrored:
            width = msg.image_width or (cameras.raw[0].width if cameras else 0)
            points, confidence = keypoints.mirror_hub(points, confidence, width)
            sigma = None if sigma is None else _mirrored(sigma)
    except ObservationError as error:
        raise Refused('count', str(error)) from error
    camera = None
    if msg.dim == KeypointFrame.DIM_2D:
        camera, undistort = cameras.rectified if msg.rectified else cameras.raw
        points, confidence = keypoints.clean(undistort(points), confidence)
    if not (confidence > config.confidence_threshold).any():
        raise Refused(
            'no_points',
            f'no point has a confidence above {config.confidence_threshold} '
            f'(largest: {confidence.max():.3f}; input.confidence_threshold)',
        )
    return Observation(
        ns_from_stamp(msg.header.stamp), points, confidence, camera, sigma, person.track_id
    )


@np.errstate(invalid='ignore')  # a signalling NaN makes numpy warn when it becomes a float64
def _usable_points(
    person: PersonKeypoints, dim: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Points (K, dim), NaN where unusable; confidence (K,) and Observation.sigma, None if none."""
    flat = np.array(person.points, dtype=np.float64)
    if flat.size == 0 or flat.size % dim:
        raise Refused('count', f'{flat.size} coordinates: expected a positive multiple of {dim}')
    points = flat.reshape(-1, dim)
    if len(person.confidence) not in (0, len(points)):
        raise Refused('count', f'{len(person.confidence)} confidences for {len(points)} points')
    # NaN is the message's own word for absent; anything else that is not a place is bad.
    is_bad = (np.isinf(points) | (np.abs(points) > keypoints.MAX_COORDINATE)).any(axis=1)
    confidence = None
    if len(person.confidence):
        confidence = np.array(person.confidence, dtype=np.float64)
        is_bad |= (confidence < 0.0) | (confidence > MAX_CONFIDENCE)
    sigma = None
    if len(person.covariance):
        covariance = _covariance(person, len(points), dim)
        is_bad |= ~_is_covariance(covariance)
        covariance[is_bad] = np.eye(dim)
        sigma = _sigma(covariance)
    if is_bad.mean() > MAX_BAD_POINTS:
        raise Refused(
            'not_finite',
            f'{is_bad.sum()} of {len(points)} points are infinite, absurdly large, or have a '
            'confidence outside of [0, 1] or a covariance that is none',
        )
    points[is_bad] = np.nan
    return points, confidence, sigma


def _covariance(person: PersonKeypoints, num_points: int, dim: int) -> np.ndarray:
    """(K, dim, dim) of the message's upper triangles, in the unit of the points squared."""
    size = dim * (dim + 1) // 2
    if len(person.covariance) != num_points * size:
        raise Refused(
            'count',
            f'{len(person.covariance)} covariances for {num_points} points: {size} for each, '
            'or none at all',
        )
    flat = np.array(person.covariance, dtype=np.float64).reshape(-1, size)
    rows, columns = np.triu_indices(dim)
    covariance = np.empty((num_points, dim, dim))
    covariance[:, rows, columns] = covariance[:, columns, rows] = flat
    return covariance


def _is_covariance(covariance: np.ndarray) -> np.ndarray:
    """(K,) bool: finite, positive definite, and not so flat that a float32 could not say it."""
    is_finite = np.isfinite(covariance).all(axis=(1, 2))
    variances = np.linalg.eigvalsh(np.where(is_finite[:, None, None], covariance, 0.0))
    return is_finite & (variances[:, 0] > _MIN_VARIANCE_RATIO * variances[:, -1])


def _sigma(covariance: np.ndarray) -> np.ndarray:
    """Observation.sigma: (K,) where all are isotropic, which costs the fit nothing."""
    variance = covariance[:, 0, 0]
    isotropic = variance[:, None, None] * np.eye(covariance.shape[1])
    if np.allclose(covariance, isotropic, rtol=1e-5, atol=0.0):
        return np.sqrt(variance)
    return np.linalg.cholesky(covariance)


def _in_hub(sigma: np.ndarray, to_pixels: np.ndarray, layout: keypoints.Layout) -> np.ndarray:
    """Observation.sigma of the hub's points, in pixels or metres."""
    factor = to_pixels[:, None] if sigma.ndim == 3 else to_pixels.mean()
    return (sigma * factor)[layout.source]


def _mirrored(sigma: np.ndarray) -> np.ndarray:
    """Observation.sigma of the picture, or the person, flipped left to right."""
    sigma = sigma[keypoints.MIRROR]
    if sigma.ndim == 1:
        return sigma
    flip = np.diag([-1.0, *[1.0] * (sigma.shape[1] - 1)])
    return flip @ sigma @ flip  # lower triangular again, with a positive diagonal


def keypoint_frame_msg(observations: Sequence[Observation], header: Header) -> KeypointFrame:
    """3D observations with the Cholesky factors of their points, as they came from several views.

    The stamps of the observations are not looked at.
    """
    msg = KeypointFrame(
        header=header,
        layout='coco_wholebody133',
        dim=KeypointFrame.DIM_3D,
        unit=KeypointFrame.UNIT_METRE,
    )
    for observation in observations:
        absent = observation.confidence[:, None] == 0.0
        covariance = observation.sigma @ observation.sigma.transpose(0, 2, 1)
        person = PersonKeypoints(track_id=observation.track_id, score=float('nan'))
        person.bbox = [float('nan')] * 4
        person.points = _float32(np.where(absent, np.nan, observation.points)).tolist()
        person.confidence = _float32(observation.confidence).tolist()
        person.covariance = _float32(covariance[:, *UPPER]).tolist()
        msg.people.append(person)
    return msg


# --- out -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelInfo:
    """What the messages say about the body model."""

    name: str  # name and first 8 digits of the SHA-256
    device: str = 'cpu'
    gender: str = 'neutral'


def state_msg(result: FitResult, header: Header, model: ModelInfo, stats: FitStats) -> SmplxState:
    """One person's state; its arrays are copies."""
    state = result.state
    msg = SmplxState(header=header, stats=stats)
    msg.body_id = result.body_id
    msg.source_track_id = result.track_id
    msg.status = int(result.status)
    msg.quality = int(result.quality)
    msg.confidence = float(result.confidence)
    msg.observed_fraction = float(result.observed_fraction)
    msg.gender = model.gender
    msg.model = model.name
    msg.betas = _float32(state.betas)
    msg.betas_frozen = int(state.betas_frozen)
    msg.expression = state.expression.tolist()
    quat_xyzw = state.turns.quats_xyzw
    _fill_pose(msg.pelvis.pose, state.joints[0], quat_xyzw[0])
    msg.pelvis.covariance = state.pelvis_covariance.ravel()
    _fill_twist(msg.pelvis_twist.twist, state)
    _fill_pose(msg.body, *frames.body_pose(state.joints, quat_xyzw[0]))
    msg.transl = _float32(state.transl)
    msg.rotations = _float32(quat_xyzw)
    msg.positions = _float32(state.joints)
    msg.velocities = _float32(state.joint_velocities)
    msg.rotation_sigma = _float32(state.rotation_sigma)
    msg.position_sigma = _float32(state.position_sigma)
    msg.position_covariance = _float32(state.position_covariance[:, *UPPER])
    msg.source = np.asarray(state.source, dtype=np.uint8)
    return msg


def hand_msgs(result: FitResult, header: Header) -> list[HandState]:
    """Left and right hand of one person."""
    return [_hand_msg(side, result, header) for side in (0, 1)]


def _hand_msg(side: int, result: FitResult, header: Header) -> HandState:
    state, joints = result.state, _HAND_JOINTS[side]
    point_joints = _HAND_POINT_JOINTS[side]
    wrist = _WRISTS[side]
    chain = _ARMS[side]
    msg = HandState(header=header, body_id=result.body_id, side=side)
    sources = state.source[joints]
    msg.source = hand_source(sources)
    seen = np.count_nonzero(state.source[point_joints] == Source.OBSERVED)
    msg.observed_fraction = seen / len(point_joints)
    msg.occluded_for = float(result.hand_occluded_s[side])
    _fill_pose(msg.wrist.pose, state.joints[wrist], state.turns.world_quats_xyzw[wrist])
    # The wrist's orientation adds up along the arm; the joints' errors are taken as independent.
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = state.position_covariance[wrist]
    covariance[[3, 4, 5], [3, 4, 5]] = np.square(state.rotation_sigma[chain]).sum()
    msg.wrist.covariance = covariance.ravel()
    msg.rotations = _float32(state.turns.quats_xyzw[joints])
    msg.keypoints = _float32(state.landmarks[_HAND_POINTS[side]])
    msg.keypoint_sigma = _float32(state.position_sigma[point_joints])
    msg.rotation_sigma = _float32(state.rotation_sigma[joints])
    return msg


def hand_source(sources: np.ndarray) -> int:
    """The word for a whole hand: observed only if every finger joint is."""
    if (sources == Source.OBSERVED).all():
        return int(Source.OBSERVED)
    if (sources <= Source.PARTIAL).any():
        return int(Source.PARTIAL)
    return int(sources.max())


def stats_msg(stats: CoreFitStats) -> FitStats:
    """What the fit says about itself; times and counters are the node's to fill in."""
    return FitStats(
        window_frames=stats.window_frames,
        iterations=stats.iterations,
        prior_evals=stats.prior_evals,
        loss_data=float(stats.loss_data),
        loss_prior=float(stats.loss_prior),
        loss_temporal=float(stats.loss_temporal),
        reprojection_rms_px=float(stats.reprojection_rms_px),
        residual_rms_m=float(stats.residual_rms_m),
        warm_started=bool(stats.warm_started),
        converged=bool(stats.converged),
    )


def joint_state_msg(state: BodyState, header: Header) -> JointState:
    """Angles of the URDF's joints, in the order of `urdf.JOINT_NAMES`."""
    msg = JointState(header=header)
    msg.name = urdf.JOINT_NAMES
    msg.position = urdf.joint_angles(state.turns)
    return msg


def is_finite(msg: SmplxState, result: FitResult) -> bool:
    """Whether every number about the body is finite (the last guard before publishing).

    Hands are made of the same numbers, and of the landmarks. `stats` has fields that are NaN by
    definition.
    """
    numbers = np.concatenate(
        (
            msg.positions, msg.rotations, msg.velocities, msg.betas, msg.expression, msg.transl,
            msg.rotation_sigma, msg.position_covariance, msg.pelvis.covariance,
            _pose_values(msg.pelvis.pose), _pose_values(msg.body), _twist_values(msg),
            (msg.confidence, msg.observed_fraction), result.hand_occluded_s,
            _float32(result.state.landmarks),
        )
    )  # fmt: skip
    return bool(np.isfinite(numbers).all())


def _pose_values(pose: Pose) -> tuple[float, ...]:
    p, q = pose.position, pose.orientation
    return p.x, p.y, p.z, q.x, q.y, q.z, q.w


def _twist_values(msg: SmplxState) -> tuple[float, ...]:
    v, w = msg.pelvis_twist.twist.linear, msg.pelvis_twist.twist.angular
    return v.x, v.y, v.z, w.x, w.y, w.z


def _fill_pose(pose: Pose, position: np.ndarray, quat_xyzw: np.ndarray) -> None:
    pose.position.x, pose.position.y, pose.position.z = position.tolist()
    q = pose.orientation
    q.x, q.y, q.z, q.w = quat_xyzw.tolist()


def _fill_twist(twist, state: BodyState) -> None:
    """Twist of the pelvis; its covariance stays 0, which in ROS messages means unknown."""
    twist.linear.x, twist.linear.y, twist.linear.z = state.joint_velocities[0].tolist()
    angular = pelvis_angular_velocity(state.joints, state.joint_velocities)
    twist.angular.x, twist.angular.y, twist.angular.z = angular.tolist()


def _float32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).ravel()
