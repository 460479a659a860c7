"""Each reader on a small file that the test writes."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dposer_core.errors import MediaError
from training.data.archives import read_clips
from training.data.asf_amc import read_amc, read_asf
from training.data.bvh import read_bvh
from training.data.deepmimic import read_deepmimic
from training.data.expmap import read_expmap
from training.data.handy import read_handy

ASF = """:version 1.10
:units
  mass 1.0
  length 0.5
  angle deg
:root
   order TX TY TZ RX RY RZ
:bonedata
  begin
     id 1
     name lfemur
     direction 0 -1 0
     length 8
     axis 0 0 20 XYZ
     dof rx ry rz
     limits (-160.0 20.0)
            (-70.0 70.0)
            (-60.0 70.0)
  end
  begin
     id 2
     name ltibia
     direction 0 -1 0
     length 7
     axis 0 0 20 XYZ
     dof rx
  end
:hierarchy
  begin
    root lfemur
    lfemur ltibia
  end
"""
AMC = """#!OML:ASF
:FULLY-SPECIFIED
:DEGREES
1
root 10 20 30 0 90 0
lfemur 10 20 30
ltibia 40
2
root 11 20 30 0 0 0
lfemur 0 0 0
ltibia 0
"""
BVH = """HIERARCHY
ROOT hip
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT chest
  {
    OFFSET 0 30 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 25 1
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.025
100 90 0 0 0 0 10 20 30
100 91 0 5 6 7 0 0 0
"""


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_asf_bone_turns_about_its_own_axis_frame(tmp_path: Path) -> None:
    skeleton = read_asf(_write(tmp_path / 'a.asf', ASF))
    motion = read_amc(_write(tmp_path / 'a.amc', AMC), skeleton, 'a', 'cmu_asf_amc')
    axis = Rotation.from_euler('z', 20, degrees=True)
    local = axis * Rotation.from_euler('xyz', [10, 20, 30], degrees=True) * axis.inv()
    expected = (Rotation.from_euler('y', 90, degrees=True) * local).as_matrix()
    np.testing.assert_allclose(motion.world_rotmat['lfemur'][0], expected, atol=1e-12)


def test_asf_lengths_are_inches_over_the_unit(tmp_path: Path) -> None:
    skeleton = read_asf(_write(tmp_path / 'a.asf', ASF))
    motion = read_amc(_write(tmp_path / 'a.amc', AMC), skeleton, 'a', 'cmu_asf_amc')
    np.testing.assert_allclose(motion.pelvis[0], np.array([10, 20, 30]) * 0.0254 / 0.5)


def test_amc_without_a_bone_names_it(tmp_path: Path) -> None:
    skeleton = read_asf(_write(tmp_path / 'a.asf', ASF))
    amc = _write(tmp_path / 'a.amc', AMC.replace('ltibia 40\n', ''))
    with pytest.raises(MediaError, match='ltibia'):
        read_amc(amc, skeleton, 'a', 'cmu_asf_amc')


def test_text_is_not_an_asf_file(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match='bonedata'):
        read_asf(_write(tmp_path / 'a.asf', 'hello'))


def test_bvh_rotations_are_intrinsic_in_channel_order(tmp_path: Path) -> None:
    motion = read_bvh(_write(tmp_path / 'a.bvh', BVH), 'a', 'cmu_bvh', 0.01)
    x, y, z = (
        Rotation.from_euler(a, d, degrees=True) for a, d in (('x', 20), ('y', 30), ('z', 10))
    )
    np.testing.assert_allclose(
        motion.world_rotmat['chest'][0], (z * x * y).as_matrix(), atol=1e-12
    )


def test_bvh_gives_rate_position_and_rest_offsets(tmp_path: Path) -> None:
    motion = read_bvh(_write(tmp_path / 'a.bvh', BVH), 'a', 'cmu_bvh', 0.01)
    assert motion.fps == pytest.approx(40.0)
    np.testing.assert_allclose(motion.pelvis[1], [1.0, 0.91, 0.0])
    np.testing.assert_allclose(motion.rest_direction['chest'], [0, 25, 1])


def test_bvh_with_missing_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match='9 channels'):
        read_bvh(
            _write(tmp_path / 'a.bvh', BVH.replace(' 10 20 30', '').replace(' 7 0 0 0', ' 7')),
            'a',
            'b',
            1.0,
        )


def test_expmap_is_read_with_the_opposite_sign(tmp_path: Path) -> None:
    rows = np.zeros((3, 117))
    rows[1:, 3 + 3 * 2 : 3 + 3 * 3] = [0.3, 0.2, 0.1]  # lfemur
    path = tmp_path / 'a.txt'
    np.savetxt(path, rows, delimiter=',')
    motion = read_expmap(path, 'a', 'cmu_expmap')
    assert motion.num_frames == 2  # the T-pose of the first row is dropped
    turned = Rotation.from_rotvec([-0.3, -0.2, -0.1]).as_matrix()
    np.testing.assert_allclose(motion.world_rotmat['ltibia'][0], turned, atol=1e-12)


def test_expmap_of_wrong_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r'rows of 117'):
        read_expmap(_write(tmp_path / 'a.txt', '1,2,3\n4,5,6\n'), 'a', 'cmu_expmap')


def test_deepmimic_hinge_bends_the_knee(tmp_path: Path) -> None:
    still = [1.0, 0.0, 0.0, 0.0]
    row = [0.05, 1.0, 2.0, 3.0, *still * 3, *still, -0.5, *still, *still, 0.4]
    row += [*still, 0.0, *still, *still, 0.0]
    path = _write(tmp_path / 'humanoid3d_a.txt', json.dumps({'Frames': [row, row]}))
    motion = read_deepmimic(path, 'a', 'deepmimic')
    assert motion.fps == pytest.approx(20.0)
    np.testing.assert_allclose(motion.pelvis[0], [-3.0, 2.0, 1.0])  # forward is z, left is x
    back = motion.world_rotmat['rknee'][0] @ [0.0, -1.0, 0.0]
    np.testing.assert_allclose(back, [0.0, -np.cos(0.5), -np.sin(0.5)], atol=1e-12)


def _snapshot(sign: float) -> str:
    points = np.zeros((25, 3))
    for finger in range(5):  # straight fingers along -z, 20 mm per bone, beside each other
        first = 1 if finger == 0 else 5 * finger
        for i in range(4 if finger == 0 else 5):
            points[first + i] = [sign * (15 - 10 * finger), 0, -20 * (i + 1)]
    record = {'names': ['flat'], 'jointPositions': points.tolist()}
    return 'const poses = [' + json.dumps(record, separators=(',', ':'))[:-1] + '}]'


def test_left_and_right_snapshots_agree_after_mirroring(tmp_path: Path) -> None:
    _, right = read_handy(_write(tmp_path / 'r.js', _snapshot(-1.0)), left=False)
    _, left = read_handy(_write(tmp_path / 'l.js', _snapshot(1.0)), left=True)
    np.testing.assert_allclose(left, right, atol=1e-12)
    np.testing.assert_allclose(right[0, 0, 0], [-1.0, 0.0, 0.0], atol=1e-12)  # along the fingers


def test_damaged_clips_are_skipped_with_their_names_and_reasons(tmp_path, caplog):
    folder = tmp_path / 'cmu_asf_amc' / '01'
    folder.mkdir(parents=True)
    (folder / '01.asf').write_text(ASF)
    (folder / '01_01.amc').write_text(AMC)
    (folder / '01_02.amc').write_text(AMC.replace('root 11', 'root nan'))
    (folder / '01_03.amc').write_text(AMC[: len(AMC) // 2])  # half downloaded
    broken = tmp_path / 'cmu_asf_amc' / '02'
    broken.mkdir()
    (broken / '02.asf').write_text(ASF.replace('root lfemur', 'root nobone'))
    (broken / '02_01.amc').write_text(AMC)
    skipped: dict[str, str] = {}
    names = [motion.name for motion in read_clips('cmu_asf_amc', tmp_path, skipped)]
    assert names == ['01_01']
    assert skipped['cmu_asf_amc/01/01_02.amc'] == 'the root has NaN in 1 of 2 frames'
    assert len(skipped) == 3 and 'nobone' in skipped['cmu_asf_amc/02/02_01.amc']
    assert 'skipped' in caplog.text


def test_a_folder_without_clips_is_an_error(tmp_path):
    (tmp_path / 'deepmimic').mkdir()
    with pytest.raises(MediaError, match='holds no clips'):
        list(read_clips('deepmimic', tmp_path))
