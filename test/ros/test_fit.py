"""`dposer fit` and `dposer benchmark latency` on a few frames, and what they refuse."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from dposer_core.body_model import load_body
from dposer_core.camera import PinholeCamera
from dposer_core.config import Config
from dposer_core.errors import ConfigError, MediaError, ObservationError
from dposer_core.state import Status
from dposer_core.states_io import read_states
from dposer_ros import bags, cli
from dposer_ros.cli.benchmark import MOTION
from dposer_ros.cli.fit import camera_choice
from dposer_ros.replay import CameraChoice, crowd, load_fitter, read_clip, read_config, replay
from test.swaying import CAMERA, swaying

NUM_FRAMES = 5
OPTIONS = ('--no-prior',)  # figures of these few frames mean nothing; the prior has its own tests


@pytest.fixture(scope='module')
def observations():
    return [seen for _, seen in swaying(load_body().tables, NUM_FRAMES, noise=1.0)]


@pytest.fixture
def npz(observations, tmp_path) -> Path:
    path = tmp_path / 'keypoints.npz'
    np.savez(
        path,
        points=[seen.points for seen in observations],
        stamp_ns=[seen.stamp_ns for seen in observations],
        size=[CAMERA.width, CAMERA.height],
        camera=[CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy],
    )
    return path


def keypoint_bag(folder: Path, observations, **fields) -> Path:
    store = bags.typestore()
    types = store.types
    k = np.array([CAMERA.fx, 0, CAMERA.cx, 0, CAMERA.fy, CAMERA.cy, 0, 0, 1])
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:

        def send(topic, msgtype, stamp_ns, **values):
            stamp = types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 1_000_000_000))
            header = types['std_msgs/msg/Header'](stamp, 'camera')
            message = types[msgtype](header=header, **values)
            known = [c for c in writer.connections if c.topic == topic]
            connection = (
                known[0] if known else writer.add_connection(topic, msgtype, typestore=store)
            )
            writer.write(connection, stamp_ns, store.serialize_cdr(message, msgtype))

        send(
            '/camera_info', bags.CAMERA_TYPE, 1, height=CAMERA.height, width=CAMERA.width,
            distortion_model='plumb_bob', d=np.zeros(5), k=k, r=np.eye(3).ravel(),
            p=np.zeros(12), binning_x=0, binning_y=0,
            roi=types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False),
        )  # fmt: skip
        for seen in observations:
            person = types['dposer_ros/msg/PersonKeypoints'](
                track_id='', score=1.0, bbox=np.full(4, np.nan, dtype=np.float32),
                points=seen.points.astype(np.float32).ravel(),
                confidence=seen.confidence.astype(np.float32),
                covariance=np.zeros(0, dtype=np.float32),
            )  # fmt: skip
            values = dict(
                layout='coco_wholebody133', names=[], dim=2, unit=0, image_width=CAMERA.width,
                image_height=CAMERA.height, rectified=False, mirrored=False, seq=0,
                people=[person],
            )  # fmt: skip
            send('/keypoints', bags.KEYPOINT_TYPE, seen.stamp_ns, **{**values, **fields})
    return folder


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, *OPTIONS])
    assert end.value.code == 0


def test_fit_answers_every_frame_and_says_the_figures(npz, tmp_path, capsys):
    output, report = tmp_path / 'states.npz', tmp_path / 'report.json'
    run('fit', str(npz), '-o', str(output), '--json', str(report))
    states = read_states(output)
    assert len(states) == NUM_FRAMES and states.camera == CAMERA
    figures = json.loads(report.read_text())
    assert figures['answered'] == NUM_FRAMES and figures['fit_ms']['p99'] > 0
    assert 'npz, coco_wholebody133, 5 frames' in capsys.readouterr().out


def test_fitting_twice_gives_the_same_states(npz, tmp_path):
    outputs = [tmp_path / 'a.npz', tmp_path / 'b.npz']
    for output in outputs:
        run('fit', str(npz), '-o', str(output))
    first, second = (read_states(output) for output in outputs)
    np.testing.assert_array_equal(first.pose_rotvec, second.pose_rotvec)
    np.testing.assert_array_equal(first.transl, second.transl)


@pytest.mark.ros
def test_bag_gives_the_observations_that_were_recorded(observations, tmp_path):
    clip = read_clip(keypoint_bag(tmp_path / 'bag', observations), CameraChoice(), Config())
    assert [stamp for stamp, _ in clip.frames] == [seen.stamp_ns for seen in observations]
    assert clip.camera == CAMERA and not clip.refused
    for (_, (got,)), seen in zip(clip.frames, observations, strict=True):
        np.testing.assert_allclose(got.points, seen.points, atol=1e-3)  # float32 pixels


@pytest.mark.ros
def test_camera_option_replaces_the_recorded_one(observations, tmp_path):
    camera = PinholeCamera(500.0, 500.0, 480.0, 270.0, 0, 0)
    path = keypoint_bag(tmp_path / 'bag', observations)
    clip = read_clip(path, CameraChoice(camera=camera), Config())
    assert clip.camera == camera and clip.frames[0][1][0].camera == camera


@pytest.mark.ros
def test_repeated_stamps_of_a_bag_are_counted(observations, tmp_path):
    path = keypoint_bag(tmp_path / 'bag', [*observations, observations[-1]])
    clip = read_clip(path, CameraChoice(), Config())
    assert len(clip.frames) == NUM_FRAMES and sum(clip.refused.values()) == 1


@pytest.mark.ros
def test_bag_in_which_no_frame_is_usable_says_why(observations, tmp_path):
    path = keypoint_bag(tmp_path / 'bag', observations, layout='coco134')
    with pytest.raises(ObservationError, match=r"no frame can be used .*unknown.*'coco134'"):
        read_clip(path, CameraChoice(), Config())


def test_pixels_without_a_camera_say_what_to_give(npz, tmp_path):
    with np.load(npz) as archive:
        np.savez(tmp_path / 'bare.npz', points=archive['points'])
    with pytest.raises(ObservationError, match=r'--camera fx,fy,cx,cy, or --size'):
        read_clip(tmp_path / 'bare.npz', CameraChoice(), Config())


def test_recording_of_nobody_is_refused(npz, tmp_path, capsys):
    with np.load(npz) as archive:
        arrays = {**archive, 'confidence': np.zeros((NUM_FRAMES, 133))}
    arrays['points'] = np.full_like(arrays['points'], np.nan)
    np.savez(npz, **arrays)
    with pytest.raises(SystemExit):
        cli.main(['fit', str(npz), '-o', str(tmp_path / 's.npz')])
    assert 'nobody in any of the 5 frames' in capsys.readouterr().err


def test_confidences_that_are_all_zero_are_named(npz, tmp_path, capsys):
    with np.load(npz) as archive:
        np.savez(npz, **{**archive, 'confidence': np.zeros((NUM_FRAMES, 133))})
    with pytest.raises(SystemExit):
        cli.main(['fit', str(npz), '-o', str(tmp_path / 's.npz'), *OPTIONS])
    assert 'nobody could be fitted in 5 frames' in capsys.readouterr().err
    assert not (tmp_path / 's.npz').exists()


def test_size_option_assumes_a_camera(npz, tmp_path):
    clip = read_clip(npz, camera_choice('', None, '960x540'), Config())
    assert clip.camera.fx == pytest.approx(np.hypot(960, 540))
    clip = read_clip(npz, camera_choice('', 700.0, '960x540'), Config())
    assert clip.camera.fx == 700.0


def test_stamps_that_go_backwards_are_refused(npz, tmp_path):
    with np.load(npz) as archive:
        arrays = {**archive}
    arrays['stamp_ns'] = arrays['stamp_ns'][::-1]
    np.savez(npz, **arrays)
    with pytest.raises(ObservationError, match='time stamps do not increase'):
        read_clip(npz, CameraChoice(), Config())


@pytest.mark.parametrize(
    ('camera', 'focal', 'size', 'message'),
    [
        ('600,600,320', None, '', r"--camera '600,600,320': expected fx,fy,cx,cy"),
        ('a,b,c,d', None, '', r'expected fx,fy,cx,cy'),
        ('0,600,320,240', None, '', r'fx and fy must be positive'),
        ('nan,600,320,240', None, '', r'expected fx,fy,cx,cy'),
        ('', 600.0, '', r'--focal 600 needs --size'),
        ('600,600,320,240', 600.0, '', r'leave out --focal'),
        ('', None, '640', r"--size '640': expected WIDTHxHEIGHT"),
    ],
)
def test_camera_options_that_make_no_camera_are_refused(camera, focal, size, message):
    with pytest.raises(ConfigError, match=message):
        camera_choice(camera, focal, size)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nothing.json'], 'nothing.json does not exist'),
        (['{npz}', '-o', '{folder}/no/states.npz'], 'does not exist; make the folder'),
        (['{npz}', '-o', '{folder}'], 'is a folder; give a file'),
        (['{npz}', '--json', '/proc/figures.json'], '/proc is not writable'),
        (['{npz}', '--params', '{npz}'], 'not a readable YAML file'),
        (['{npz}', '--layout', 'coco'], "unknown keypoint layout 'coco'"),
        (['{npz}', '--fps', '0'], '--fps 0.0: must be positive'),
    ],
)
def test_bad_arguments_end_in_one_line_and_exit_code_2(arguments, message, npz, tmp_path, capsys):
    values = {'npz': npz, 'folder': tmp_path}
    with pytest.raises(SystemExit) as end:
        cli.main(['fit', '-o', str(tmp_path / 's.npz')] + [a.format(**values) for a in arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_parameters_of_the_node_and_plain_ones_are_read(tmp_path):
    path = tmp_path / 'p.yaml'
    node = 'dposer_wholebody: {ros__parameters: {use_sim_time: true, fit: {window: 5}}}'
    for text in (node, 'fit: {window: 5}', 'fit.window: 5'):
        path.write_text(text)
        assert read_config(path).fit.window == 5


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('fit: {windo: 5}', "'fit.windo'; did you mean 'fit.window'"),
        ('- 1', 'expected parameters by name, got list'),
        ('fit: {window: many}', "'fit.window' = 'many': expected int"),
        ('a: b: c', 'not a readable YAML file'),
    ],
)
def test_bad_parameter_files_are_refused(text, message, tmp_path):
    path = tmp_path / 'p.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(path)


def test_missing_parameter_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r'no\.yaml is not a readable'):
        read_config(tmp_path / 'no.yaml')


def test_long_silence_loses_everybody_as_in_the_live_node(observations):
    make, _ = load_fitter(Config(), with_prior=False)
    frames = [(seen.stamp_ns, [seen]) for seen in observations[:2]]
    again = replace(observations[2], stamp_ns=observations[2].stamp_ns + 3_000_000_000)
    outcome = replay(make(), [*frames, (again.stamp_ns, [again])])
    assert [result.body_id for result in outcome.results] == ['p0001'] * 3 + ['p0002']
    assert outcome.results[2].status == Status.LOST and len(outcome.cold_seconds) == 2


def test_crowd_stands_side_by_side(observations):
    frames = list(crowd([(seen.stamp_ns, [seen]) for seen in observations], 3))
    people = frames[0][1]
    assert [person.track_id for person in people] == ['0', '1', '2']
    left, right = (people[i].points[:17, 0] for i in (0, 1))
    assert right.min() > left.max()


def test_benchmark_reports_stages_memory_and_machine(npz, tmp_path, capsys):
    report = tmp_path / 'report.json'
    run('benchmark', 'latency', '--bag', str(npz), '--json', str(report))
    figures = json.loads(report.read_text())
    assert figures['fit_ms']['p99'] >= figures['fit_ms']['p50'] > 0
    assert figures['cold_starts'] == 1 and figures['stages_ms']
    assert figures['memory_mb']['peak'] > 0 and figures['machine']['cores'] >= 1


def test_benchmark_of_bag_and_motion_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(['benchmark', 'latency', '--bag', 'x.mcap', '--motion'])
    assert 'exclude each other' in capsys.readouterr().err


def test_damaged_bag_is_refused(tmp_path):
    (tmp_path / 'x.mcap').write_bytes(b'short')
    with pytest.raises(MediaError, match='not a readable ROS 2 bag'):
        read_clip(tmp_path / 'x.mcap', CameraChoice(), Config())


def test_built_in_motion_is_whole_and_has_pauses():
    clip = read_clip(MOTION, CameraChoice(), Config())
    gaps = np.diff([stamp for stamp, _ in clip.frames])
    assert len(clip.frames) == 600 and (gaps > 2_000_000_000).sum() == 9
    assert clip.camera.fx == 900.0
