"""`dposer data` as a user types it."""

import json
from pathlib import Path

import numpy as np
import pytest

from dposer_core.body_model import Body, load_body
from dposer_core.errors import ModelFileError
from dposer_ros.cli import main
from training.data.motion import SmplxMotion
from training.inspect_poses import clip_sheet
from training.pack import select_body
from training.pose_stats import column_stats

RNG = np.random.default_rng(1)


@pytest.fixture
def body() -> Body:
    try:
        return load_body()
    except ModelFileError:
        pytest.skip('the open body is not built')


@pytest.fixture
def amass(tmp_path: Path) -> Path:
    for name in ('a', 'b'):
        folder = tmp_path / 'published' / 'CMU' / name
        folder.mkdir(parents=True)
        poses = RNG.uniform(-0.5, 0.5, (50, 165))
        np.savez(folder / 'x_stageii.npz', poses=poses, betas=np.zeros(16))
    (tmp_path / 'published' / 'CMU' / 'b' / 'y_stageii.npz').write_bytes(b'half')
    return tmp_path / 'published'


def run(*arguments: object) -> None:
    main(['data', *map(str, arguments)])


def fails(capsys, *arguments: object) -> str:
    """The one line of a user's error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith('error: ')
    return message


def succeeds(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert not stopped.value.code


def test_prepare_pack_and_stats_of_a_prepared_set(amass, tmp_path, capsys):
    prepared, packed = tmp_path / 'amass.npz', tmp_path / 'packed.npz'
    succeeds('prepare', 'amass', '--root', amass, '--out', prepared)
    shown = capsys.readouterr()
    assert '2 of 3 clips, 1 skipped' in shown.out and 'train: 24 rows' in shown.out
    assert 'skipped CMU/b/y' in shown.err and 'KIT' in shown.err
    succeeds('pack', '--only-prepared', '--add', prepared, '--out', packed)
    with np.load(packed) as file, np.load(prepared) as source:
        poses, weights = select_body(dict(file), ('amass',), ())
        np.testing.assert_array_equal(poses, source['train_body'])
        assert (weights == 1).all() and file['body_sources'].tolist() == ['amass']
    capsys.readouterr()
    table = tmp_path / 'stats.json'
    succeeds('stats', packed, '--json', table)
    assert 'left_hip x' in capsys.readouterr().out
    content = json.loads(table.read_text())
    assert content['counts'] == {'amass': 24}
    assert content['columns'][0]['mean'] == pytest.approx(float(poses[:, 0].mean()), abs=1e-6)


def test_prepare_of_a_missing_folder_tells_the_tree_and_the_source(tmp_path, capsys):
    message = fails(
        capsys, 'prepare', 'grab', '--root', tmp_path / 'no', '--out', tmp_path / 'x.npz'
    )
    assert 'GRAB/s1/*_stageii.npz' in message and 'https://amass.is.tue.mpg.de' in message


def test_list_names_every_set(capsys):
    succeeds('list')
    shown = capsys.readouterr().out
    assert all(name in shown for name in ('amass', 'reinterhand', 'wcpa', 'now'))


def test_packing_nothing_and_a_wrong_file_are_refused(tmp_path, capsys):
    assert '--add' in fails(capsys, 'pack', '--only-prepared', '--out', tmp_path / 'x.npz')
    np.savez(tmp_path / 'other.npz', a=np.zeros(3))
    message = fails(
        capsys,
        'pack',
        '--only-prepared',
        '--add',
        tmp_path / 'other.npz',
        '--out',
        tmp_path / 'x.npz',
    )
    assert 'dposer data prepare' in message
    assert 'expression' not in fails(capsys, 'stats', tmp_path / 'other.npz')


def test_statistics_of_known_rows():
    rows = np.zeros((1001, 63))
    rows[:, 1] = np.linspace(-1.0, 1.0, 1001)
    column = column_stats(rows, 'body')[1]
    assert column.name == 'left_hip y'
    assert (column.mean, column.low, column.high) == pytest.approx((0.0, -0.998, 0.998), abs=1e-9)
    assert column.std == pytest.approx(0.5779, abs=1e-3)


def test_inspect_draws_samples(body, amass, tmp_path, capsys):
    import cv2

    prepared, picture = tmp_path / 'amass.npz', tmp_path / 'bodies.png'
    succeeds('prepare', 'amass', '--root', amass, '--out', prepared)
    succeeds('inspect', prepared, '-o', picture, '--count', 2)
    image = cv2.imread(str(picture))
    assert image.shape == (240, 960, 3)
    drawn = (image != image[0, 0]).any(axis=-1)
    assert all(0.05 < drawn[:, 240 * k : 240 * k + 240].mean() < 0.6 for k in range(4))
    assert 'holds no' in fails(capsys, 'inspect', prepared, '-o', picture, '--part', 'hand')


def test_a_clip_is_shown_from_the_front_however_it_walks(body):
    pose = np.zeros((2, 55, 3))
    pose[:, 16, 2], pose[:, 17, 2] = -1.2, 1.2
    pelvis = np.zeros((2, 3))
    towards_z = SmplxMotion('a', 's', 'x', 30.0, pose, pelvis)
    turned = pose.copy()
    turned[:, 0, 1] = 2.0
    towards_x = SmplxMotion('a', 's', 'x', 30.0, turned, pelvis)
    first, second = (clip_sheet(body, motion, 2, 2, 80) for motion in (towards_z, towards_x))
    assert np.abs(first.astype(int) - second).mean() < 0.5


def test_an_unknown_clip_names_similar_ones(tmp_path, capsys):
    folder = tmp_path / 'deepmimic'
    folder.mkdir()
    still = [1.0, 0.0, 0.0, 0.0]
    row = [0.1, 0.0, 0.9, 0.0, *still * 4, 0.0, *still * 2, 0.0, *still, 0.0, *still * 2, 0.0]
    (folder / 'humanoid3d_walk.txt').write_text(json.dumps({'Frames': [row] * 2}))
    message = fails(
        capsys, 'inspect', '--clip', 'wal', '--root', tmp_path, '-o', tmp_path / 'x.png'
    )
    assert 'similar: walk (deepmimic)' in message
