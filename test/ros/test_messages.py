"""The compiled messages carry every field that the interface promises, with its type."""

import importlib
import json
from pathlib import Path

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


HASHES = {  # REP-2011; who moves one breaks every recorded bag and every peer of another version
    'Capsule': 'd36c4bc7167f1aa254c5ef7523611ee2cc17c04756dde09b8e5dd35c45518e58',
    'CapsuleArray': 'ed83edf52d4b0a38137686cb28f01f6f2b2b5c6ea03623691735e6363965e020',
    'FitStats': '1b713536c4097c50a784456f5498a8ceecfc07365b60aca46d8e42be2696b686',
    'HandState': '4d444525afc6c8b8085fe391fc6da63d89d7bc866fc8dee024dd68b9c81d8bd2',
    'HandStateArray': '616b18c5f6b43d482a0d74776ae9f11f288a2770799e593f5e3e311be6780ea5',
    'Heartbeat': '741db1307729240680270cbffc84973eca72348492fd249a44bae555dc3621ef',
    'KeypointFrame': '2b3435f8bf11b165077f60e4da801b3ae4f0822fb05c61c68662d86d8ea2c9d1',
    'NamedPoses': 'c97fc6d09a96fa0f7911eff447832fe087b2ee682f961aa00595f70ace23a676',
    'PersonKeypoints': '9e1e1dcdffb2ac183d402525bfab61668449ae08719aef949749f9cbd5c1ba02',
    'SmplxState': 'bf0b4c1e18e2ecb3ab5f3f27ee90bd54340d1d185805f8a10395ccaee4feeaa8',
    'SmplxStateArray': 'b7f3383fdad9470e8e55163fa43629b50d7886932b6cf33cbaa23bf128960a6e',
    'TrackEvent': '9a94647aa880a293ceab556bb62b159092315061016a2305eebd8738e2e852f8',
}


def test_type_hashes_are_pinned() -> None:
    """As the compiler of the messages wrote them down; colcon installs them at the same place."""
    package = Path(importlib.import_module('dposer_ros.msg').__file__)
    prefix = next(p for p in package.parents if (p / 'share' / 'dposer_ros' / 'msg').is_dir())
    folder = prefix / 'share' / 'dposer_ros' / 'msg'
    found = {}
    for file in folder.glob('*.json'):
        for entry in json.loads(file.read_text())['type_hashes']:
            if entry['type_name'] == f'dposer_ros/msg/{file.stem}':
                found[file.stem] = entry['hash_string'].removeprefix('RIHS01_')
    assert found == HASHES


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
