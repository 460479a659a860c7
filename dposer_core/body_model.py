"""The body model: an SMPL-X .npz on disk -> full mesh, joints, and the tables of the hot path.

Axes of SMPL-X: y up, facing +z, the left hand towards +x, T-pose, every joint frame aligned with
the world at rest. Metres. The pelvis of the rest pose is not the origin; `transl` comes on top.
Hand poses are relative to the flat hand, whatever mean pose the file holds. Joints and landmarks
do not depend on the `smplx` package, whose licence is non-commercial; the tests compare with it.

Source: linear blend skinning with pose blend shapes (SMPL, Loper et al. 2015; SMPL-X, Pavlakos et
al. 2019).
"""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dposer_core import skeleton
from dposer_core.errors import ModelFileError
from dposer_core.observation import NUM_POINTS
from dposer_core.rotations import rotvec_to_rotmat

if TYPE_CHECKING:
    import torch

OPEN_BODY_NAME = 'open_body'
NUM_EXPRESSION = 10
"""Expression coefficients taken from a file that does not say how many it means."""
SHAPE_SPACE = 300
"""Files with 400 columns of shapedirs hold 300 betas, then 100 expression coefficients."""

# Vertices that stand for points of the body: numbers of the published SMPL-X mesh. The open body's
# vertices are ordered so that the same numbers are right.
VERTEX_IDS: dict[str, int] = {
    'nose': 9120, 'left_eye': 9448, 'right_eye': 9929, 'left_ear': 6, 'right_ear': 616,
    'left_big_toe': 5770, 'left_small_toe': 5780, 'left_heel': 8846,
    'right_big_toe': 8463, 'right_small_toe': 8474, 'right_heel': 8635,
    'left_thumb_tip': 5361, 'left_index_tip': 4933, 'left_middle_tip': 5058,
    'left_ring_tip': 5169, 'left_pinky_tip': 5286,
    'right_thumb_tip': 8079, 'right_index_tip': 7669, 'right_middle_tip': 7794,
    'right_ring_tip': 7905, 'right_pinky_tip': 8022,
}  # fmt: skip

_ARRAYS: dict[str, tuple[int, ...]] = {  # what a file must hold; -1: any length
    'v_template': (-1, 3), 'f': (-1, 3), 'shapedirs': (-1, 3, -1), 'posedirs': (-1, 3, 486),
    'J_regressor': (55, -1), 'kintree_table': (2, 55), 'weights': (-1, 55),
    'lmk_faces_idx': (51,), 'lmk_bary_coords': (51, 3),
    'dynamic_lmk_faces_idx': (-1, 17), 'dynamic_lmk_bary_coords': (-1, 17, 3),
    'hands_meanl': (45,), 'hands_meanr': (45,),
}  # fmt: skip

# Skin weights below this move a point by less than a micrometre or two.
_NEGLIGIBLE_WEIGHT = 1e-6


@dataclass(frozen=True)
class BodyTables:
    """What the hot path needs: joints and 133 landmarks, linear in C = 10 + E coefficients.

    With R, pos the world rotation and position of a joint, landmark n is
    sum_k w[n,k] * (R[b] @ (u - j[b]) + pos[b]), b = point_bones[n,k], j = rest joint,
    u = point_template[n,k] + point_dirs[n,k] @ coefficients. Unused slots have weight 0.
    """

    name: str
    """'open_body', or the file's name in lower case."""
    sha256: str
    """Of the file."""
    num_betas: int
    """Shape coefficients; they come first."""
    num_expression: int
    """E, expression coefficients; they follow."""
    joint_template: np.ndarray
    """(55, 3) rest joints, metres."""
    joint_dirs: np.ndarray
    """(55, 3, C) metres per coefficient."""
    point_bones: np.ndarray
    """(133, K) int64, joints that carry a landmark."""
    point_weights: np.ndarray
    """(133, K)."""
    point_template: np.ndarray
    """(133, K, 3) rest position seen from each bone, metres."""
    point_dirs: np.ndarray
    """(133, K, 3, C)."""
    point_posedirs: np.ndarray | None
    """(133, K, 3, 486) pose blend shapes per entry of R - I of joints 1..54; None if all zero."""
    height_template: float
    """Crown to sole at rest, metres."""
    height_dirs: np.ndarray
    """(C,)."""
    hands_mean: np.ndarray
    """(2, 45) mean hand pose of the file, left then right; never added to a pose."""


@dataclass(frozen=True)
class Body:
    """A loaded body model.

    Arguments of the methods: pose_rotvec (55, 3) or (B, 55, 3) rad; betas (10,) or (B, 10),
    expression (E,) or (B, E) and transl (3,) or (B, 3) in metres, all three zero by default.
    """

    tables: BodyTables
    faces: np.ndarray
    """(F, 3) int64."""
    v_template: np.ndarray
    """(V, 3) float32."""
    shapedirs: np.ndarray
    """(V, 3, C) float32, betas first."""
    posedirs: np.ndarray | None
    """(V, 3, 486) float32; None if all zero."""
    weights: np.ndarray
    """(V, 55) float32."""

    def vertices(
        self, pose_rotvec: Any, betas: Any = None, expression: Any = None, transl: Any = None
    ) -> np.ndarray:
        """(B, V, 3) float32 skinned mesh."""
        rotmat, coefficients, transl = self._inputs(pose_rotvec, betas, expression, transl)
        rotations, joints, rest = self._chain(rotmat, coefficients)
        shaped = self.v_template + _linear(self.shapedirs, coefficients.astype(np.float32))
        if self.posedirs is not None:
            feature = (rotmat[:, 1:] - np.eye(3)).reshape(len(rotmat), -1)
            shaped = shaped + _linear(self.posedirs, feature.astype(np.float32))
        offset = joints - (rotations @ rest[..., None])[..., 0]
        transforms = np.concatenate([rotations, offset[..., None]], axis=-1).astype(np.float32)
        blended = (self.weights @ transforms.reshape(len(rotmat), 55, 12)).reshape(
            len(rotmat), -1, 3, 4
        )
        skinned = np.einsum('bvij,bvj->bvi', blended[..., :3], shaped) + blended[..., 3]
        return (skinned + transl[:, None]).astype(np.float32)

    def joints(
        self, pose_rotvec: Any, betas: Any = None, expression: Any = None, transl: Any = None
    ) -> np.ndarray:
        """(B, 55, 3) joint positions."""
        rotmat, coefficients, transl = self._inputs(pose_rotvec, betas, expression, transl)
        return self._chain(rotmat, coefficients)[1] + transl[:, None]

    def landmarks(
        self, pose_rotvec: Any, betas: Any = None, expression: Any = None, transl: Any = None
    ) -> np.ndarray:
        """(B, 133, 3) COCO-WholeBody points."""
        rotmat, coefficients, transl = self._inputs(pose_rotvec, betas, expression, transl)
        rotations, joints, _ = self._chain(rotmat, coefficients)
        points = _points(self.tables, rotmat, rotations, joints, coefficients, np.einsum)
        return points + transl[:, None]

    def torch_forward(
        self,
        pose_rotvec: 'torch.Tensor',
        betas: 'torch.Tensor',
        expression: 'torch.Tensor',
        transl: 'torch.Tensor',
    ) -> tuple['torch.Tensor', 'torch.Tensor']:
        """Joints (B, 55, 3) and landmarks (B, 133, 3), differentiable in all arguments.

        All arguments have the batch axis; the result has the type and device of `pose_rotvec`.
        """
        import torch

        tables = self._torch_tables(pose_rotvec.dtype, pose_rotvec.device)
        rotmat = rotvec_to_rotmat(pose_rotvec)
        coefficients = torch.cat([betas, expression], dim=-1)
        rest = tables.joint_template + _linear(tables.joint_dirs, coefficients)
        rotations, joints = _forward_kinematics(rotmat, rest, lambda x: torch.stack(x, dim=1))
        points = _points(tables, rotmat, rotations, joints, coefficients, torch.einsum)
        return joints + transl[:, None], points + transl[:, None]

    def _inputs(
        self, pose_rotvec: Any, betas: Any, expression: Any, transl: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, 55, 3, 3) local rotations, (B, C) coefficients, (B, 3) translation; float64."""
        pose = np.asarray(pose_rotvec, dtype=np.float64).reshape(-1, skeleton.NUM_JOINTS, 3)
        sizes = (self.tables.num_betas, self.tables.num_expression, 3)
        parts = [
            np.broadcast_to(np.asarray(0.0 if x is None else x, np.float64), (len(pose), n))
            for x, n in zip((betas, expression, transl), sizes, strict=True)
        ]
        return rotvec_to_rotmat(pose), np.concatenate(parts[:2], axis=1), parts[2]

    def _chain(
        self, rotmat: np.ndarray, coefficients: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World rotations (B, 55, 3, 3), world joints (B, 55, 3), rest joints (B, 55, 3)."""
        rest = self.tables.joint_template + _linear(self.tables.joint_dirs, coefficients)
        return *_forward_kinematics(rotmat, rest, lambda x: np.stack(x, axis=1)), rest

    @cached_property
    def _torch_cache(self) -> dict[Any, Any]:
        return {}

    def _torch_tables(self, dtype: Any, device: Any) -> Any:
        """The tables as tensors of this type and device."""
        import types

        import torch

        key = (dtype, str(device))
        if key not in self._torch_cache:
            self._torch_cache[key] = types.SimpleNamespace(
                **{
                    name: torch.as_tensor(
                        value, device=device, dtype=dtype if value.dtype.kind == 'f' else None
                    )
                    if isinstance(value, np.ndarray)
                    else value
                    for name, value in vars(self.tables).items()
                }
            )
        return self._torch_cache[key]


def _linear(dirs: Any, coefficients: Any) -> Any:
    """(N, 3, C) directions times (B, C) coefficients -> (B, N, 3); numpy or torch."""
    return (coefficients @ dirs.reshape(-1, dirs.shape[-1]).T).reshape(-1, *dirs.shape[:-1])


def _forward_kinematics(
    rotmat: Any, rest: Any, stack: Callable[[list[Any]], Any]
) -> tuple[Any, Any]:
    """Chain local rotations (B, 55, 3, 3) along rest joints (B, 55, 3); numpy or torch."""
    rotations, joints = [rotmat[:, 0]], [rest[:, 0]]
    for j in range(1, skeleton.NUM_JOINTS):
        parent = int(skeleton.PARENTS[j])
        bone = rest[:, j] - rest[:, parent]
        rotations.append(rotations[parent] @ rotmat[:, j])
        joints.append(joints[parent] + (rotations[parent] @ bone[..., None])[..., 0])
    return stack(rotations), stack(joints)


def _points(
    tables: Any, rotmat: Any, rotations: Any, joints: Any, coefficients: Any, einsum: Any
) -> Any:
    """(B, 133, 3) landmarks by the formula of `BodyTables`; numpy or torch."""
    bones = tables.point_bones
    template = tables.point_template - tables.joint_template[bones]
    dirs = tables.point_dirs - tables.joint_dirs[bones]
    offset = template + einsum('nkic,bc->bnki', dirs, coefficients)
    if tables.point_posedirs is not None:
        feature = rotmat[:, 1:].reshape(len(rotmat), -1) - _identity_feature(rotmat)
        offset = offset + einsum('nkif,bf->bnki', tables.point_posedirs, feature)
    slots = einsum('bnkij,bnkj->bnki', rotations[:, bones], offset) + joints[:, bones]
    return einsum('nk,bnki->bni', tables.point_weights, slots)


def _identity_feature(like: Any) -> Any:
    feature = np.tile(np.eye(3).reshape(-1), skeleton.NUM_JOINTS - 1)
    return feature if isinstance(like, np.ndarray) else like.new_tensor(feature)


def open_body_path() -> Path:
    """Where the open body is kept: `$XDG_CACHE_HOME/dposer_ros/open_body.npz`."""
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(cache) / 'dposer_ros' / f'{OPEN_BODY_NAME}.npz'


def load_body(path: str | Path = '') -> Body:
    """Load an SMPL-X .npz; '' is the open body in the cache.

    Files of both published layouts are taken: 300 + 100 or 10 + 10 columns of shapedirs.

    Raises:
        ModelFileError: no such file, not readable, or not an SMPL-X file.
    """
    file = Path(path).expanduser() if path else open_body_path()
    if not file.is_file():
        remedy = 'choose an existing .npz with model.path' if path else 'run `dposer body build`'
        raise ModelFileError(f'body model {file} not found; {remedy}')
    arrays = _read(file)
    _check(arrays, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return _assemble(arrays, str(arrays.get('model_name', file.stem.lower())), sha256)


def _read(file: Path) -> dict[str, np.ndarray]:
    """The arrays that are needed; nothing pickled is ever executed."""
    try:
        # Opened here: numpy leaves the file open when it turns out to be no archive.
        with file.open('rb') as stream, np.load(stream, allow_pickle=False) as archive:
            wanted = [n for n in (*_ARRAYS, 'model_name', 'num_expression') if n in archive.files]
            return {name: archive[name] for name in wanted}
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelFileError(
            f'body model {file} cannot be read as .npz ({error}); '
            'take the .npz of the SMPL-X download again, or run `dposer body build --force`'
        ) from None


def _check(arrays: Mapping[str, np.ndarray], file: Path) -> None:
    """Raises ModelFileError unless the arrays are those of an SMPL-X body."""
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise ModelFileError(
            f'body model {file} is not an SMPL-X file: it lacks {", ".join(missing)}; '
            'SMPL, SMPL+H, MANO and FLAME files do not serve'
        )
    for name, shape in _ARRAYS.items():
        actual = arrays[name].shape
        if len(actual) != len(shape) or any(
            w not in (-1, a) for w, a in zip(shape, actual, strict=True)
        ):
            wanted = ' x '.join('any' if w < 0 else str(w) for w in shape)
            raise ModelFileError(
                f'body model {file}: {name} has shape {actual}, expected {wanted}'
            )
    num_vertices = len(arrays['v_template'])
    if num_vertices <= max(VERTEX_IDS.values()):
        raise ModelFileError(
            f'body model {file} has {num_vertices} vertices; SMPL-X has 10475 and its landmarks '
            f'reach to vertex {max(VERTEX_IDS.values())}'
        )
    if arrays['shapedirs'].shape[2] < skeleton.NUM_BETAS:
        raise ModelFileError(
            f'body model {file}: shapedirs has {arrays["shapedirs"].shape[2]} columns, '
            f'at least {skeleton.NUM_BETAS} are needed'
        )
    if not np.array_equal(arrays['kintree_table'][0, 1:].astype(np.int64), skeleton.PARENTS[1:]):
        raise ModelFileError(f'body model {file}: its joint tree is not that of SMPL-X')


def _assemble(arrays: Mapping[str, np.ndarray], name: str, sha256: str) -> Body:
    shapedirs = _coefficient_columns(arrays)
    num_expression = shapedirs.shape[2] - skeleton.NUM_BETAS
    posedirs = arrays['posedirs'] if np.any(arrays['posedirs']) else None
    template = arrays['v_template'].astype(np.float64)
    regressor = arrays['J_regressor'].astype(np.float64)
    joint_template = regressor @ template
    joint_dirs = np.einsum('jv,vic->jic', regressor, shapedirs, optimize=True)
    tall, low = template[:, 1].argmax(), template[:, 1].argmin()
    tables = BodyTables(
        name=name,
        sha256=sha256,
        num_betas=skeleton.NUM_BETAS,
        num_expression=num_expression,
        joint_template=joint_template,
        joint_dirs=joint_dirs,
        **_fold_points(arrays, template, shapedirs, posedirs, joint_template, joint_dirs),
        height_template=float(template[tall, 1] - template[low, 1]),
        height_dirs=shapedirs[tall, 1] - shapedirs[low, 1],
        hands_mean=np.stack([arrays['hands_meanl'], arrays['hands_meanr']]).astype(np.float64),
    )
    return Body(
        tables=tables,
        faces=arrays['f'].astype(np.int64),
        v_template=template.astype(np.float32),
        shapedirs=shapedirs.astype(np.float32),
        posedirs=None if posedirs is None else posedirs.astype(np.float32),
        weights=arrays['weights'].astype(np.float32),
    )


def _coefficient_columns(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """(V, 3, 10 + E) float64: betas and expression, from either column layout."""
    shapedirs = arrays['shapedirs']
    wide = shapedirs.shape[2] > SHAPE_SPACE
    start = SHAPE_SPACE if wide else skeleton.NUM_BETAS
    num_expression = int(arrays.get('num_expression', NUM_EXPRESSION))
    return np.concatenate(
        [shapedirs[:, :, : skeleton.NUM_BETAS], shapedirs[:, :, start : start + num_expression]],
        axis=2,
    ).astype(np.float64)


def landmark_vertices(
    arrays: Mapping[str, np.ndarray],
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Of each of the 133 points that is no joint: its vertices and their weights."""
    faces = arrays['f'].astype(np.int64)
    named = ('nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear')
    toes = ('big_toe', 'small_toe', 'heel')
    feet = [f'{side}_{part}' for side in ('left', 'right') for part in toes]
    single = dict(enumerate(named)) | {17 + i: part for i, part in enumerate(feet)}
    for start, side in ((91, 'left'), (112, 'right')):
        for i, finger in enumerate(('thumb', 'index', 'middle', 'ring', 'pinky')):
            single[start + 4 + 4 * i] = f'{side}_{finger}_tip'
    points = {n: (np.array([VERTEX_IDS[name]]), np.ones(1)) for n, name in single.items()}
    # The outline of the face slides with the view in SMPL-X; the frontal row stands for all.
    outline = zip(
        arrays['dynamic_lmk_faces_idx'][0], arrays['dynamic_lmk_bary_coords'][0], strict=True
    )
    inner = zip(arrays['lmk_faces_idx'], arrays['lmk_bary_coords'], strict=True)
    for n, (face, bary) in enumerate([*outline, *inner], start=23):
        points[n] = (faces[int(face)], np.asarray(bary, dtype=np.float64))
    return points


def landmark_joints() -> dict[int, int]:
    """Of each of the 133 points that is a joint: which one."""
    body = [
        f'{side}_{part}'
        for part in ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
        for side in ('left', 'right')
    ]
    points = {5 + i: skeleton.JOINT_INDEX[name] for i, name in enumerate(body)}
    for start, side in ((91, 'left'), (112, 'right')):
        hand = enumerate(skeleton.hand21_joints(side), start=start)
        points |= {n: joint for n, joint in hand if joint >= 0}
    return points


def _fold_points(
    arrays: Mapping[str, np.ndarray],
    template: np.ndarray,
    shapedirs: np.ndarray,
    posedirs: np.ndarray | None,
    joint_template: np.ndarray,
    joint_dirs: np.ndarray,
) -> dict[str, Any]:
    """The point_* tables: a landmark's vertices gathered per bone, exact for linear skinning."""
    slots: list[list[tuple[Any, ...]]] = [[] for _ in range(NUM_POINTS)]
    for n, joint in landmark_joints().items():
        zero = None if posedirs is None else np.zeros((3, posedirs.shape[2]))
        slots[n] = [(joint, 1.0, joint_template[joint], joint_dirs[joint], zero)]
    for n, (vertices, bary) in landmark_vertices(arrays).items():
        share = bary[:, None] * arrays['weights'][vertices].astype(np.float64)  # (vertices, 55)
        bones = np.flatnonzero(share.sum(axis=0) > _NEGLIGIBLE_WEIGHT)
        total = share[:, bones].sum()
        for bone in bones:
            mean = share[:, bone] / share[:, bone].sum()
            slots[n].append(
                (
                    bone,
                    share[:, bone].sum() / total,
                    mean @ template[vertices],
                    np.einsum('v,vic->ic', mean, shapedirs[vertices]),
                    None if posedirs is None else np.einsum('v,vif->if', mean, posedirs[vertices]),
                )
            )
    return _pad_slots(slots)


def _pad_slots(slots: list[list[tuple[Any, ...]]]) -> dict[str, Any]:
    """Ragged slots -> dense tables; an empty slot is bone 0 with weight 0."""
    num_slots = max(map(len, slots))
    names = ('point_bones', 'point_weights', 'point_template', 'point_dirs', 'point_posedirs')
    tables: dict[str, Any] = {}
    for column, name in enumerate(names):
        first = slots[0][0][column]
        if first is None:
            tables[name] = None
            continue
        kind = np.int64 if name == 'point_bones' else np.float64
        table = np.zeros((NUM_POINTS, num_slots, *np.shape(first)), dtype=kind)
        for n, entries in enumerate(slots):
            for k, entry in enumerate(entries):
                table[n, k] = entry[column]
        tables[name] = table
    return tables
