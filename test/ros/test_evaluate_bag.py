"""`dposer evaluate-bag` from bag to files: right figures, the same bytes, one-line errors."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from people_bag import (
    TRUTH_POINTS,
    TRUTH_STATES,
    TYPES,
    camera_info,
    crossing_messages,
    keypoints,
    write_bag,
)

from dposer_core.recording import read_npz
from dposer_core.states_io import read_states
from dposer_ros import bags, cli
from test.swaying import CAMERA, FRAME_NS, START_NS

pytestmark = pytest.mark.ros

KEYPOINTS = Path(cli.__file__).parents[1] / 'data' / 'benchmark_keypoints.npz'
QUICK = ('--no-prior', '--no-report')  # figures of these few frames mean nothing


def evaluate(*args) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(['evaluate-bag', *map(str, args)])
    assert end.value.code == 0


def refused(capsys, *args) -> str:
    """The one line of the error."""
    with pytest.raises(SystemExit) as end:
        cli.main(['evaluate-bag', *map(str, args)])
    text = capsys.readouterr().err
    assert end.value.code == 2 and 'Traceback' not in text
    (line,) = [line for line in text.splitlines() if line.startswith('error')]
    return line


def in_a_process(*args) -> subprocess.CompletedProcess:
    command = [sys.executable, '-m', 'dposer_ros.cli', 'evaluate-bag', *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope='module')
def crossing(tmp_path_factory) -> Path:
    """Two people, 3D, whose hands are hidden for two frames."""
    messages = crossing_messages(8, dim=3, hidden=(4, 5))
    return write_bag(tmp_path_factory.mktemp('bags') / 'crossing', messages)


@pytest.fixture(scope='module')
def evaluated(crossing, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('out')
    evaluate(crossing, '--topic', '/keypoints', '--truth', TRUTH_STATES, '--out', out, *QUICK)
    return out


def test_truth_of_a_topic_gives_errors_people_and_swaps(evaluated):
    metrics = json.loads((evaluated / 'metrics.json').read_text())
    assert metrics['frames'] == 8 and metrics['coverage'] == 1.0
    truth = metrics['truth']
    # 1 mm of noise on the points, and the links pull a little.
    assert truth['error_mm']['body']['pelvis_aligned'] < 15.0
    assert truth['pelvis_m']['median'] < 0.02 and truth['id_swaps'] == 0
    assert set(truth['people']) == {'walker0', 'walker1'}
    assert metrics['hidden_hands']['frames'] == 2 * 2 * 2
    assert metrics['hidden_hands']['source_right'] == 1.0


def test_truth_of_keypoints_agrees_with_that_of_states(crossing, evaluated, tmp_path):
    evaluate(crossing, '--topic', '/keypoints', '--truth', TRUTH_POINTS, '--out', tmp_path, *QUICK)
    found, other = (
        json.loads((folder / 'metrics.json').read_text())['truth']
        for folder in (tmp_path, evaluated)
    )
    assert found['points'] == 'landmarks' and found['id_swaps'] == 0
    assert abs(found['pelvis_m']['median'] - other['pelvis_m']['median']) < 0.02  # hips


def test_a_run_is_its_own_truth_and_equal_to_itself(crossing, evaluated, tmp_path):
    evaluate(
        crossing, '--topic', '/keypoints', '--truth', evaluated / 'states.npz',
        '--compare', evaluated, '--out', tmp_path, '--with-inputs', '--no-prior',
    )  # fmt: skip
    truth = json.loads((tmp_path / 'metrics.json').read_text())['truth']
    assert truth['error_mm']['all']['absolute'] < 1e-6
    comparison = json.loads((tmp_path / 'comparison.json').read_text())
    assert comparison['largest_mm'] < 1e-6 and comparison['matched'] == 16
    assert comparison['identical'] == {
        'states.npz': True,
        'metrics.json': False,  # this one has another truth
        'states.mcap': False,  # and the inputs beside the states
    }
    assert 'Against the other run' in (tmp_path / 'report.html').read_text()


def test_bag_of_states_is_compared_as_a_live_recording_would_be(crossing, evaluated, tmp_path):
    evaluate(
        crossing, '--topic', '/keypoints', '--compare', evaluated / 'states.mcap',
        '--out', tmp_path, *QUICK,
    )  # fmt: skip
    comparison = json.loads((tmp_path / 'comparison.json').read_text())
    assert comparison['largest_mm'] < 1e-3  # float32 of the message
    assert comparison['identical'] == {'states.mcap': True}


def test_bag_of_states_holds_the_states(evaluated):
    states = read_states(evaluated / 'states.npz')
    rows = iter(range(len(states)))
    for _, _, message in bags.read_messages(evaluated / 'states.mcap', ['/human/smplx_states']):
        for state in message.states:
            row = next(rows)
            assert state.body_id == states.body_id[row]
            np.testing.assert_array_equal(
                state.positions, states.joints[row].astype(np.float32).ravel()
            )
    assert next(rows, None) is None


def test_json_of_another_detector_is_read_through_its_adapter(tmp_path):
    points = np.random.default_rng(2).uniform(150.0, 400.0, (3, 17, 2))
    messages = [('/camera_info', START_NS, bags.CAMERA_TYPE, camera_info())]
    for k in range(3):
        person = np.concatenate([points[0], np.full((17, 1), 0.9)], axis=1).ravel().tolist()
        text = json.dumps({'version': 1.3, 'people': [{'pose_keypoints_2d': person}]})
        message = TYPES['std_msgs/msg/String'](text)
        messages.append(('/poses', START_NS + k * FRAME_NS, 'std_msgs/msg/String', message))
    params = tmp_path / 'params.yaml'
    params.write_text('input: {type: json, layout: coco17, frame_id: camera}')
    bag = write_bag(tmp_path / 'bag', messages)
    evaluate(bag, '--params', params, '--out', tmp_path / 'out', *QUICK)
    states = read_states(tmp_path / 'out' / 'states.npz')
    assert sorted(set(states.stamp_ns)) == [START_NS + k * FRAME_NS for k in range(3)]


def test_frames_that_do_not_continue_are_counted(tmp_path):
    messages = list(crossing_messages(4, dim=3))
    frames = [m for m in messages if m[0] == '/keypoints']
    again = ('/keypoints', frames[-1][1] + 1, *frames[0][2:])  # an older stamp
    moved = keypoints(frames[-1][1] + FRAME_NS, [], dim=3, unit=2)
    moved.header.frame_id = 'elsewhere'
    bag = write_bag(
        tmp_path / 'bag',
        [*frames, again, ('/keypoints', again[1] + 1, bags.KEYPOINT_TYPE, moved)],
    )
    evaluate(bag, '--out', tmp_path / 'out', *QUICK)
    metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert {cause: entry['count'] for cause, entry in metrics['refused'].items()} == {
        'stamp_order': 1,
        'input_changed': 1,
    }
    assert metrics['frames'] == 4


# --- errors ---


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (('--topic', '/nope'), "no topic '/nope'"),
        (('--topic', TRUTH_STATES), 'expected dposer_ros/msg/KeypointFrame'),
        ((), 'several topics of type dposer_ros/msg/KeypointFrame'),
        (('--topic', '/keypoints', '--truth', '/nope'), "no topic '/nope'; of states or"),
        (('--topic', '/keypoints', '--truth', 'nothing.npz'), 'nothing.npz does not exist'),
        (('--topic', '/keypoints', '--compare', '/nowhere'), 'does not exist'),
        (('--params', '/nowhere.yaml'), 'not a readable YAML file'),
    ],
)
def test_what_cannot_work_is_refused_before_the_fit(crossing, options, expected, tmp_path, capsys):
    out = tmp_path / 'out'
    assert expected in refused(capsys, crossing, '--out', out, *options)
    assert not (out / 'states.npz').exists()


def test_results_never_replace_what_they_are_made_from(evaluated, crossing, capsys):
    bag = evaluated / 'states.mcap'
    assert 'write over the bag' in refused(capsys, bag, '--out', evaluated)
    line = refused(capsys, crossing, '--compare', evaluated, '--out', evaluated)
    assert 'write over --compare' in line


def test_output_that_is_a_file_is_one_line(crossing, tmp_path, capsys):
    (tmp_path / 'out').write_text('mine')
    line = refused(capsys, crossing, '--topic', '/keypoints', '--out', tmp_path / 'out', *QUICK)
    assert 'no folder can be made there' in line
    assert (tmp_path / 'out').read_text() == 'mine'


def test_truth_of_2d_keypoints_is_refused(tmp_path, capsys):
    messages = [m for m in crossing_messages(3) if m[0] in ('/keypoints', '/camera_info')]
    bag = write_bag(tmp_path / 'bag', messages)
    line = refused(capsys, bag, '--truth', '/keypoints', '--out', tmp_path / 'out', *QUICK)
    assert 'keypoints of 2 dimensions are no truth' in line


def test_damaged_bag_is_one_line(tmp_path):
    (tmp_path / 'a.mcap').write_bytes(bytes(range(256)) * 9)
    done = in_a_process(tmp_path / 'a.mcap', '--out', tmp_path / 'out')
    assert done.returncode == 2 and 'not a readable ROS 2 bag' in done.stderr
    assert 'Traceback' not in done.stderr


# --- damage ---


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A file with some bytes cut off, exchanged or made up."""
    kind = rng.randrange(4)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        return data + rng.randbytes(rng.randrange(1, 2000))
    start = rng.randrange(len(data))
    if kind == 2:
        return data[:start] + rng.randbytes(min(64, len(data) - start)) + data[start + 64 :]
    broken = bytearray(data)
    for _ in range(rng.randrange(1, 20)):
        place = rng.randrange(len(data))
        broken[place] = rng.choice([0x00, 0xFF, 0x7F, 0x80, rng.randrange(256)])
    return bytes(broken)


def survive(bag: Path, tmp_path: Path, capsys, before: set[Path]) -> int:
    """Exit status of an evaluation that must neither crash nor write elsewhere."""
    out = tmp_path / 'out'
    with pytest.raises(SystemExit) as end:
        cli.main(['evaluate-bag', str(bag), '--out', str(out), '--topic', '/keypoints', *QUICK])
    err = capsys.readouterr().err
    assert end.value.code in (0, 2), err
    assert 'Traceback' not in err
    lines = [line for line in err.splitlines() if line.startswith('error')]
    assert len(lines) == (end.value.code == 2)
    elsewhere = {p for p in tmp_path.rglob('*') if out not in (p, *p.parents)} - before
    assert not elsewhere
    return end.value.code


def fuzz(crossing: Path, storage: str, count: int, tmp_path: Path, capsys) -> list[int]:
    whole = list(crossing_messages(3, dim=3)) if storage == 'db3' else None
    source = crossing if whole is None else write_bag(tmp_path / 'source', whole, 'db3')
    (inner,) = source.glob(f'*.{storage}')
    data, bag, rng = inner.read_bytes(), tmp_path / f'bag.{storage}', random.Random(storage)
    codes = []
    for _ in range(count):
        bag.write_bytes(damaged(data, rng))
        codes.append(survive(bag, tmp_path, capsys, set(tmp_path.rglob('*'))))
    return codes


@pytest.mark.parametrize('storage', ['mcap', 'db3'])
def test_damaged_bags_give_results_or_one_line(crossing, storage, tmp_path, capsys):
    codes = fuzz(crossing, storage, 10, tmp_path, capsys)
    assert 2 in codes


@pytest.mark.slow
@pytest.mark.parametrize('storage', ['mcap', 'db3'])
def test_many_damaged_bags_give_results_or_one_line(crossing, storage, tmp_path, capsys):
    codes = fuzz(crossing, storage, 300, tmp_path, capsys)
    print(f'{storage}: {codes.count(0)} evaluated, {codes.count(2)} refused in one line')
    assert codes.count(2) > 10


def evil_messages():
    """Frames whose texts are paths and whose numbers are absurd, among good ones."""
    frames = [m for m in crossing_messages(6, dim=3) if m[0] == '/keypoints']
    for k, (topic, stamp, kind, message) in enumerate(frames):
        yield topic, stamp, kind, message
        bad = keypoints(stamp + 1, [], layout='../../../etc/passwd', dim=3)
        if k == 1:
            bad = keypoints((2**31 - 1) * 10**9, [], dim=3, unit=2)
        elif k == 2:
            points = np.full((133, 3), 1e38)
            bad = keypoints(stamp + 1, [('../../x' * 1000, points, np.ones(133))])
        elif k == 3:
            bad = keypoints(stamp + 1, [('a', np.zeros((40_000, 3)), np.ones(40_000))])
        elif k == 4:
            person = keypoints(stamp + 1, [('a', np.zeros((133, 3)), np.ones(133))]).people[0]
            bad = keypoints(stamp + 1, [], dim=3, unit=2)
            bad.people = [person] * 2000
        yield topic, stamp + 1, kind, bad


@pytest.mark.parametrize('name', ['../../evil', '/etc/passwd', '/a/../../b', 'x\ny\x00z', '~/e'])
def test_texts_of_a_bag_are_never_paths(name, tmp_path, capsys, monkeypatch):
    messages = [(name if t == '/keypoints' else t, s, k, m) for t, s, k, m in evil_messages()]
    for _, _, _, message in messages:
        message.header.frame_id = name
    bag = write_bag(tmp_path / 'bag', messages)
    before = set(tmp_path.rglob('*'))
    here = tmp_path / 'here'
    here.mkdir()
    monkeypatch.chdir(here)
    evaluate(bag, '--topic', name, '--out', here / 'out', '--with-inputs', *QUICK)
    names = {path.name for path in (here / 'out').iterdir()}
    assert names == {'states.npz', 'states.mcap', 'metrics.json', 'latency.json'}
    assert set(tmp_path.rglob('*')) - before == {here, *here.rglob('*')}
    assert {p.name for p in here.iterdir()} == {'out'}
    metrics = json.loads((here / 'out' / 'metrics.json').read_text())
    assert metrics['frames'] >= 6 and metrics['refused']['stamp_future']['count'] == 1
    assert metrics['refused']['layout']['count'] >= 1


def test_a_type_that_only_looks_like_ours_is_refused(tmp_path, capsys):
    message = TYPES['std_msgs/msg/String']('x')
    bag = write_bag(tmp_path / 'bag', [('/keypoints', 1, 'std_msgs/msg/String', message)])
    (inner,) = bag.glob('*.mcap')
    data = inner.read_bytes().replace(b'std_msgs/msg/String', b'dposer_ros/msg/Evil')
    (tmp_path / 'evil.mcap').write_bytes(data)
    line = refused(
        capsys, tmp_path / 'evil.mcap', '--topic', '/keypoints', '--out', tmp_path / 'o'
    )
    assert 'dposer_ros/msg/Evil, expected' in line


# --- the same bytes ---


def detector_bag(folder: Path, num_frames: int) -> Path:
    """Keypoints that a detector found in a video, as the demo records them."""
    recording = read_npz(KEYPOINTS)
    k = recording.camera or CAMERA
    info = camera_info()
    info.k = np.array([k.fx, 0, k.cx, 0, k.fy, k.cy, 0, 0, 1])
    info.width, info.height = recording.size or (k.width, k.height)
    stamps = recording.stamps_ns or range(START_NS, START_NS + 10**12, FRAME_NS)
    messages = [('/camera_info', START_NS, bags.CAMERA_TYPE, info)]
    for stamp, people in zip(stamps, recording.frames[:num_frames], strict=False):
        seen = [(p.track_id, p.points, p.confidence) for p in people]
        frame = keypoints(START_NS + stamp, seen, image_width=0, image_height=0)
        messages.append(('/keypoints', START_NS + stamp, bags.KEYPOINT_TYPE, frame))
    return write_bag(folder, messages)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path):
    """With the prior, on what a detector saw."""
    bag = detector_bag(tmp_path / 'bag', 60)
    for name in 'ab':
        done = in_a_process(bag, '--out', tmp_path / name)
        assert done.returncode == 0, done.stderr
    for name in ('states.npz', 'metrics.json', 'states.mcap'):
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes(), name
    assert len(read_states(tmp_path / 'a' / 'states.npz')) >= 50
    print(f'{len(read_states(tmp_path / "a" / "states.npz"))} states, equal in all bytes')
