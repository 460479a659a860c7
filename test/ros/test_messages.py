"""The compiled messages carry every field that the interface promises, with its type."""

import importlib

import pytest

pytestmark = pytest.mark.ros

FIELDS = {
    'KeypointFrame': {
        'header': 'std_msgs/Header',
        'layout': 'string',
        'names': 'sequence<string>',
        'dim': 'uint8',
        'unit': 'uint8',
        'image_width': 'uint32',
        'image_height': 'uint32',
        'rectified': 'boolean',
        'mirrored': 'boolean',
        'seq': 'uint64',
        'people': 'sequence<dposer_ros/PersonKeypoints>',
    },
    'PersonKeypoints': {
        'track_id': 'string',
        'score': 'float',
        'bbox': 'float[4]',
        'points': 'sequence<float>',
        'confidence': 'sequence<float>',
        'covariance': 'sequence<float>',
    },
    'SmplxState': {
        'header': 'std_msgs/Header',
        'body_id': 'string',
        'source_track_id': 'string',
        'status': 'uint8',
        'quality': 'uint8',
        'confidence': 'float',
        'observed_fraction': 'float',
        'gender': 'string',
        'model': 'string',
        'betas': 'float[10]',
        'betas_frozen': 'uint8',
        'expression': 'sequence<float>',
        'pelvis': 'geometry_msgs/PoseWithCovariance',
        'pelvis_twist': 'geometry_msgs/TwistWithCovariance',
        'body': 'geometry_msgs/Pose',
        'transl': 'float[3]',
        'rotations': 'float[220]',
        'positions': 'float[165]',
        'velocities': 'float[165]',
        'rotation_sigma': 'float[55]',
        'position_sigma': 'float[55]',
        'position_covariance': 'float[330]',
        'source': 'uint8[55]',
        'stats': 'dposer_ros/FitStats',
    },
    'SmplxStateArray': {
        'header': 'std_msgs/Header',
        'states': 'sequence<dposer_ros/SmplxState>',
    },
    'HandState': {
        'header': 'std_msgs/Header',
        'body_id': 'string',
        'side': 'uint8',
        'source': 'uint8',
        'observed_fraction': 'float',
        'occluded_for': 'float',
        'wrist': 'geometry_msgs/PoseWithCovariance',
        'rotations': 'float[60]',
        'keypoints': 'float[63]',
        'keypoint_sigma': 'float[21]',
        'rotation_sigma': 'float[15]',
        'alternatives': 'sequence<float>',
        'alternative_weights': 'sequence<float>',
    },
    'HandStateArray': {
        'header': 'std_msgs/Header',
        'hands': 'sequence<dposer_ros/HandState>',
    },
    'FitStats': {
        'frame_seq': 'uint64',
        'window_frames': 'uint32',
        'iterations': 'uint16',
        'prior_evals': 'uint16',
        'age_in': 'float',
        'queue': 'float',
        'preprocess': 'float',
        'fit': 'float',
        'postprocess': 'float',
        'publish': 'float',
        'total': 'float',
        'loss_data': 'float',
        'loss_prior': 'float',
        'loss_temporal': 'float',
        'reprojection_rms_px': 'float',
        'residual_rms_m': 'float',
        'dropped_inputs': 'uint32',
        'skipped_deadline': 'uint32',
        'rejected_inputs': 'uint32',
        'warm_started': 'boolean',
        'converged': 'boolean',
        'device': 'string',
    },
    'TrackEvent': {
        'header': 'std_msgs/Header',
        'body_id': 'string',
        'kind': 'uint8',
        'reason': 'string',
    },
    'Heartbeat': {
        'header': 'std_msgs/Header',
        'beat': 'uint64',
        'state': 'string',
        'quality': 'uint8',
        'worker_age': 'float',
        'output_age': 'float',
    },
    'NamedPoses': {
        'header': 'std_msgs/Header',
        'name': 'sequence<string>',
        'pose': 'sequence<geometry_msgs/Pose>',
        'is_valid': 'sequence<boolean>',
    },
    'Capsule': {
        'body_id': 'string',
        'name': 'string',
        'p0': 'geometry_msgs/Point',
        'p1': 'geometry_msgs/Point',
        'radius_m': 'float',
        'sigma_m': 'float',
        'velocity': 'geometry_msgs/Vector3',
        'source': 'uint8',
    },
    'CapsuleArray': {
        'header': 'std_msgs/Header',
        'capsules': 'sequence<dposer_ros/Capsule>',
    },
}

# Service and action parts: requests, responses, goals, results, feedback.
CALLS = {
    'srv.ResetBody.Request': {'body_id': 'string'},
    'srv.ResetBody.Response': {'ok': 'boolean', 'message': 'string'},
    'srv.SetPrimary.Request': {'body_id': 'string', 'policy': 'string'},
    'srv.SetPrimary.Response': {'ok': 'boolean', 'message': 'string'},
    'srv.SaveShape.Request': {'person_id': 'string', 'path': 'string', 'body_id': 'string'},
    'srv.SaveShape.Response': {'ok': 'boolean', 'message': 'string', 'path': 'string'},
    'srv.LoadShape.Request': {'person_id': 'string', 'path': 'string', 'body_id': 'string'},
    'srv.LoadShape.Response': {'ok': 'boolean', 'message': 'string', 'betas': 'float[10]'},
    'srv.Snapshot.Request': {'seconds': 'float'},
    'srv.Snapshot.Response': {'ok': 'boolean', 'message': 'string', 'path': 'string'},
    'srv.GetStatus.Request': {},
    'srv.GetStatus.Response': {
        'state': 'string',
        'error': 'string',
        'enabled': 'boolean',
        'input_type': 'string',
        'model': 'string',
        'device': 'string',
        'primary_id': 'string',
        'primary_policy': 'string',
        'body_ids': 'sequence<string>',
        'statuses': 'sequence<uint8>',
        'betas_frozen': 'sequence<uint8>',
        'quality': 'uint8',
        'input_rate': 'float',
        'output_rate': 'float',
        'latency_p50': 'float',
        'latency_p95': 'float',
        'received': 'uint64',
        'refused': 'uint64',
        'dropped': 'uint64',
        'worker_age': 'float',
    },
    'action.CalibrateShape.Goal': {'duration': 'float', 'body_id': 'string'},
    'action.CalibrateShape.Result': {
        'ok': 'boolean',
        'message': 'string',
        'body_id': 'string',
        'betas': 'float[10]',
    },
    'action.CalibrateShape.Feedback': {'elapsed': 'float', 'betas': 'float[10]'},
    'action.WarmUp.Goal': {'fits': 'uint32'},
    'action.WarmUp.Result': {
        'ok': 'boolean',
        'message': 'string',
        'slowest': 'float',
        'median': 'float',
    },
    'action.WarmUp.Feedback': {'done': 'uint32'},
}

EVENT_KINDS = [
    'CREATED',
    'LOST',
    'REACQUIRED',
    'ID_SWAP_SUSPECTED',
    'RESET',
    'TIME_JUMP',
    'DEGRADED',
    'RECOVERED',
    'PROVENANCE',
    'PRIMARY',
    'PARAMETERS',
    'CAMERA',
    'INPUT',
    'PROGRESS',
    'FAILED',
]

CONSTANTS = {
    'KeypointFrame': {'DIM_2D': 2, 'DIM_3D': 3}
    | {'UNIT_PIXEL': 0, 'UNIT_NORMALIZED': 1, 'UNIT_METRE': 2},
    'SmplxState': {'INITIALISING': 0, 'TRACKING': 1, 'PARTIAL': 2}
    | {'PREDICTED': 3, 'REACQUIRED': 4, 'LOST': 5}
    | {'QUALITY_FULL': 0, 'QUALITY_REDUCED': 1, 'QUALITY_FILTER_ONLY': 2, 'QUALITY_HOLD': 3}
    | {'SRC_OBSERVED': 0, 'SRC_PARTIAL': 1, 'SRC_COMPLETED': 2, 'SRC_PREDICTED': 3}
    | {'SRC_DEFAULT': 4},
    'HandState': {'LEFT': 0, 'RIGHT': 1},
    'TrackEvent': {name: number for number, name in enumerate(EVENT_KINDS)},
}


def message_type(name: str) -> type:
    return getattr(importlib.import_module('dposer_ros.msg'), name)


@pytest.mark.parametrize('name', FIELDS)
def test_fields_and_types_are_those_of_the_interface(name: str) -> None:
    assert message_type(name).get_fields_and_field_types() == FIELDS[name]


@pytest.mark.parametrize('name', CALLS)
def test_parts_of_services_and_actions_are_those_of_the_interface(name: str) -> None:
    folder, call, part = name.split('.')
    kind = getattr(getattr(importlib.import_module(f'dposer_ros.{folder}'), call), part)
    fields = dict(kind.get_fields_and_field_types())
    fields.pop('structure_needs_at_least_one_member', None)  # rosidl's, where there is none
    assert fields == CALLS[name]


@pytest.mark.parametrize('name', CONSTANTS)
def test_constants_are_those_of_the_interface(name: str) -> None:
    kind = message_type(name)
    assert {key: getattr(kind, key) for key in CONSTANTS[name]} == CONSTANTS[name]


def test_a_state_survives_serialisation() -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    state = message_type('SmplxState')(body_id='body1', expression=[0.5, -0.25])
    state.rotations[3] = 1.0
    state.source[54] = 2
    assert deserialize_message(serialize_message(state), message_type('SmplxState')) == state
