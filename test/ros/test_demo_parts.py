"""The demo's stages one by one: clips, player, detector, recorder, processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dposer_core.camera import PinholeCamera
from dposer_core.errors import ConfigError, MediaError
from dposer_core.video import VideoWriter, video_info
from dposer_ros.demo import clips
from dposer_ros.demo.clips import (
    MAX_IMAGE_BYTES,
    Clip,
    find_clip,
    image_size,
    read_frames,
    resized,
)
from dposer_ros.demo.processes import own_domain
from dposer_ros.demo.report import jitter


@pytest.fixture
def small_video(tmp_path: Path) -> Path:
    """Ten frames of 64x48 at 25 Hz, each of one grey value."""
    path = tmp_path / 'small.mp4'
    with VideoWriter(path, 64, 48, 25.0) as writer:
        for value in range(10):
            writer.write(np.full((48, 64, 3), 20 * value, np.uint8))
    return path


def test_written_video_plays_in_a_browser(small_video: Path) -> None:
    import av

    with av.open(str(small_video)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ('h264', 'yuv420p')
        assert float(stream.average_rate) == 25.0
    data = small_video.read_bytes()
    assert data.index(b'moov') < data.index(b'mdat')  # the index comes first


@pytest.mark.parametrize(
    'size', [(1768, 994), (720, 1280), (1080, 1920), (3840, 2160), (2160, 2160)]
)
def test_images_fit_between_processes(size: tuple[int, int]) -> None:
    width, height = image_size(*size)
    assert width * height * 3 <= MAX_IMAGE_BYTES
    assert width % 2 == height % 2 == 0
    assert width / height == pytest.approx(size[0] / size[1], rel=0.005)


def test_small_images_keep_their_size() -> None:
    assert image_size(640, 480) == (640, 480)


def test_a_scaled_camera_sees_points_at_the_scaled_place() -> None:
    camera = PinholeCamera(2500.0, 2500.0, 880.0, 500.0, 1768, 994)
    point = np.array([0.3, -0.2, 4.0])
    small = resized(camera, 960, 540)
    # Pixel centres are at integers, so edges are where coordinates end in .5.
    expected = (camera.project(point) + 0.5) * (960 / 1768, 540 / 994) - 0.5
    assert small.project(point) == pytest.approx(expected)


def test_a_clip_is_cut_and_thinned(small_video: Path) -> None:
    frames = list(read_frames(Clip('small', small_video, first=2, last=9, step=3)))
    assert [seconds for seconds, _ in frames] == pytest.approx([0.0, 0.12, 0.24])
    assert [round(frame.mean() / 20) for _, frame in frames] == [2, 5, 8]


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (None, ''),
        (b'', 'is empty .*download it again'),
        (b'this is no video\n' * 100, 'not a readable video .*give a video'),
    ],
)
def test_a_bad_video_is_refused_by_name(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / 'bad.mp4'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError, match=rf'bad\.mp4.*{words}'):
        video_info(path)


def test_a_clip_that_starts_behind_the_end_is_refused(small_video: Path) -> None:
    with pytest.raises(MediaError, match='no frame 99'):
        list(read_frames(Clip('small', small_video, first=99)))


def test_a_clip_behind_the_end_is_refused_before_any_process_starts(small_video: Path) -> None:
    from dposer_ros.demo.run import clip_source

    with pytest.raises(MediaError, match='has 10 frames, the clip begins at 99'):
        clip_source(str(small_video), Clip('small', small_video, first=99))


def test_an_unknown_clip_names_the_known_ones() -> None:
    with pytest.raises(MediaError, match='demo, squats, multiview'):
        find_clip('nothing')


def test_a_missing_clip_says_where_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv('DPOSER_MEDIA', str(tmp_path))
    monkeypatch.setattr(clips, '__file__', str(tmp_path / 'a' / 'b' / 'c' / 'clips.py'))
    with pytest.raises(MediaError, match='DPOSER_MEDIA'):
        find_clip('squats')


def test_a_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(MediaError, match='pip install --no-deps nowhere'):
        clips.package_folder('no_such_module', 'nowhere')


def test_two_runs_never_share_a_domain() -> None:
    with own_domain() as first, own_domain() as second:
        assert first != second
        with pytest.raises(ConfigError, match=f'domain {first} is in use'), own_domain(first):
            pass


@pytest.fixture(scope='module')
def first_detection() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, points and confidence of one real frame of the Sports2D clip."""
    pytest.importorskip('mediapipe')
    from dposer_ros.demo.detector import HolisticDetector

    detector = HolisticDetector()
    for _, image in read_frames(Clip('demo', find_clip('demo').video, 20, 40)):
        found = detector.detect(image)
        if found is not None:
            return image, *found
    raise AssertionError('nobody was found in 20 frames')


@pytest.mark.ros
class TestDetector:
    """mediapipe on a real frame."""

    def test_keypoints_lie_on_the_man(
        self, first_detection: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> None:
        image, points, confidence = first_detection
        body = points[:17][confidence[:17] > 0.5]
        assert len(body) >= 8
        # He stands on the roof, in the left half and the upper half of the 960x540 picture.
        assert (body > (240, 20)).all() and (body < (460, 280)).all()
        assert points[0, 1] < points[11, 1] < points[15, 1]  # nose above hip above ankle
        del image

    def test_absent_points_are_nan_with_confidence_zero(
        self, first_detection: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> None:
        _, points, confidence = first_detection
        assert (np.isnan(points).any(axis=1) == (confidence == 0)).all()
        assert confidence[[18, 21]].tolist() == [0.0, 0.0]  # small toes have no source
        assert ((confidence >= 0) & (confidence <= 1)).all()

    def test_the_message_keeps_stamp_and_size(
        self, first_detection: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> None:
        from dposer_ros.compat import CvBridge
        from dposer_ros.demo.detector import keypoint_frame

        image, *detection = first_detection
        message = CvBridge().cv2_to_imgmsg(image, 'bgr8')
        message.header.stamp.sec, message.header.stamp.nanosec = 12, 34
        frame = keypoint_frame(message, tuple(detection), seq=7)
        assert (frame.header.stamp.sec, frame.header.stamp.nanosec) == (12, 34)
        assert (frame.image_width, frame.image_height, frame.seq) == (960, 540, 7)
        assert len(frame.people) == 1
        assert len(frame.people[0].points) == 266

    def test_nobody_is_an_empty_frame(
        self, first_detection: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> None:
        from dposer_ros.compat import CvBridge
        from dposer_ros.demo.detector import keypoint_frame

        message = CvBridge().cv2_to_imgmsg(first_detection[0], 'bgr8')
        assert not keypoint_frame(message, None, seq=1).people

    @pytest.mark.parametrize('fault', ['tiny', 'outside', 'unseen', 'spider'])
    def test_implausible_bodies_are_refused(
        self, first_detection: tuple[np.ndarray, np.ndarray, np.ndarray], fault: str
    ) -> None:
        from dposer_ros.demo.detector import is_plausible

        _, points, confidence = first_detection
        points, confidence = points.copy(), confidence.copy()
        confidence[:17] = 0.9
        assert is_plausible(points, confidence, 960, 540)
        if fault == 'tiny':
            points *= 0.1
        elif fault == 'outside':
            points += 2000.0
        elif fault == 'unseen':
            confidence[5:] = 0.1
        else:
            points[9] += 500.0  # one wrist far away
        assert not is_plausible(points, confidence, 960, 540)


@pytest.mark.ros
def test_raw_images_survive_the_message(small_video: Path) -> None:
    from dposer_ros.compat import CvBridge

    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    bridge = CvBridge()
    assert (bridge.imgmsg_to_cv2(bridge.cv2_to_imgmsg(image, 'bgr8'), 'bgr8') == image).all()


@pytest.mark.ros
def test_usual_encodings_become_bgr_and_a_damaged_image_is_told() -> None:
    from dposer_core.errors import ObservationError
    from dposer_ros.compat import CvBridge

    image = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    bridge = CvBridge()
    for encoding, pixels in (
        ('rgb8', image[..., ::-1]),
        ('bgra8', np.dstack([image, image[..., :1]])),
        ('rgba8', np.dstack([image[..., ::-1], image[..., :1]])),
    ):
        message = bridge.cv2_to_imgmsg(np.ascontiguousarray(pixels), encoding)
        assert (bridge.imgmsg_to_cv2(message, 'bgr8') == image).all(), encoding
    grey = bridge.cv2_to_imgmsg(np.ascontiguousarray(image[..., :1]), 'mono8')
    assert (bridge.imgmsg_to_cv2(grey, 'bgr8') == image[..., :1]).all()
    grey.height = 5
    with pytest.raises(Exception) as caught:  # cv_bridge has errors of its own
        bridge.imgmsg_to_cv2(grey, 'bgr8')
    if CvBridge.__module__ == 'dposer_ros.compat':
        assert isinstance(caught.value, ObservationError)


@pytest.mark.ros
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_recording_is_readable_after_a_signal(
    tmp_path: Path, small_video: Path, number: signal.Signals
) -> None:
    from dposer_ros.demo.bag import read_recording

    bag = tmp_path / 'out' / 'test.mcap'
    with own_domain() as domain:
        environment = os.environ | {
            'ROS_DOMAIN_ID': str(domain),
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        }
        command = [sys.executable, '-m', 'dposer_ros.demo.recorder', str(bag)]
        recorder = subprocess.Popen(command, env=environment)
        try:
            subprocess.run(
                [sys.executable, '-m', 'dposer_ros.demo.player', str(small_video)]
                + ['--wait-for', 'image:1', '--timeout', '30'],
                env=environment,
                check=True,
                timeout=60,
                stdout=subprocess.DEVNULL,
            )
            assert not bag.exists()  # a file at its path is a complete one
            recorder.send_signal(number)
            recorder.send_signal(number)
            assert recorder.wait(10) == 0
        finally:
            recorder.kill()
            recorder.wait()
    recording = read_recording(bag)
    assert len(recording.images) == 10
    assert recording.image(min(recording.images)).shape == (48, 64, 3)
    assert (recording.camera.width, recording.camera.height) == (64, 48)
    stamps = np.array(sorted(recording.images))
    assert np.diff(stamps) * 1e-9 == pytest.approx(np.full(9, 0.04))
    assert [path.name for path in bag.parent.iterdir()] == ['test.mcap']


@pytest.mark.ros
def test_children_end_with_their_parent(tmp_path: Path) -> None:
    """Even when the parent is killed, which no `finally` survives."""
    if not Path('/proc').is_dir() or shutil.which('true') is None:
        pytest.skip('needs Linux')
    code = f"""
import time
from pathlib import Path
from types import SimpleNamespace
from dposer_ros.demo.processes import Children
print(Children(Path({str(tmp_path)!r}), 99).start('child', 'http.server', '0').pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        time.sleep(0.5)
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f'/proc/{child}').exists() and time.monotonic() < deadline:
        if 'Z' in Path(f'/proc/{child}/stat').read_text().rsplit(')', 1)[-1].split()[0]:
            break  # ended, and waiting for an init that collects it
        time.sleep(0.1)
    else:
        assert not Path(f'/proc/{child}').exists()


@pytest.mark.parametrize(('steps', 'expected'), [((1, 1, 1), 0.0), ((1, 3), None), ((1,), None)])
def test_jitter_is_of_consecutive_frames_or_there_is_none(steps, expected) -> None:
    stamps = np.cumsum([1, *steps]) * 33_000_000
    states = {
        int(stamp): [SimpleNamespace(body_id='p', stamp_ns=stamp, joints=np.zeros((55, 3)))]
        for stamp in stamps
    }
    assert jitter(SimpleNamespace(keypoints=states, states=states)) == expected
