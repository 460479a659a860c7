"""Tables 5 and S-12: the face of one image, by landmarks and shading.

Protocol: `dposer_core.tasks.face_reconstruction`. NoW, WCPA and FLAME are licensed; in their place
faces that training left out are drawn on the open head: each of its own shape (ten betas, standard
normal), skin (a colour and smooth spots, and a fine texture that the fit has no model of), light
(one lamp and what comes from all around) and heading, 51 landmarks with noise. The shape's prior
is the exact one, as in table S-13.

MICA and EMOCA stand-ins: the truth of what they predict with an error of half a sigma of each
coefficient. Table 5 measures the shape alone, table S-12 shape and expression.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from dposer_core import rotations, skeleton
from dposer_core.body_model import Body, load_body
from dposer_core.keypoints import FACE_POINTS, POINT_NAMES
from dposer_core.metrics import pa_mpjpe, rigid_align
from dposer_core.prior.sampling import normal_draw
from dposer_core.tasks.body_points import KeypointBody
from dposer_core.tasks.face_reconstruction import (
    ALBEDO,
    CAMERA,
    LIGHT,
    NUM_HARMONICS,
    ORIENT,
    FaceImages,
    FaceProtocol,
    Head,
    Shader,
    reconstruct,
)
from dposer_core.tasks.inverse_kinematics import IkProtocol, face_term
from dposer_core.tasks.optimise import Stages, StageWeight
from training.benchmarks.face_ik import Method, methods
from training.benchmarks.generation import BODY_NEED, PACKED_NEED, baselines_need
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.benchmarks.task_data import face_sets, paper_rows

_SIZE, _FOCAL = 72, 300.0  # px: a head is some 60 px high
_PLACE = (0.0, 0.03, 1.2)  # m, of the head's joint
_LANDMARK_PX = 0.4  # a good detector: half a percent of the face
_COLOUR_NOISE = 0.02
_VIEWS = {'all': (0.0, 40.0), 'side-view': (45.0, 75.0)}  # degrees to either side
_TILT = 0.1  # rad, one sigma
_MAX_BETA = 2.0
_SPOTS, _SPOT_SIZE, _FINE = 8, 0.05, 0.03
_SKIN = (0.75, 0.55, 0.45)
_START_ERROR = 0.5  # of the stand-ins, per coefficient
_JAW_ERROR = 0.05  # rad
_HEAD_BONES = ('head', 'jaw', 'left_eye', 'right_eye')
_HAIR = 0.05  # m below the top
_INNER = slice(17, 68)  # landmarks without the outline of the face
WEIGHTS = {'w/o prior': 0.0, 'L2': 1e-3, 'VPoser': 1e-2, 'DPoser-face': 3e-3}
"""Of the priors of shape and of jaw with expression; chosen for each on pictures of another draw.
"""


class OpenHead:
    """The front half of the open body's head, with skin."""

    def __init__(self, body: Body) -> None:
        bones = [skeleton.JOINT_INDEX[name] for name in _HEAD_BONES]
        joint = body.tables.joint_template[bones[0]]
        front = body.v_template[:, 2] > joint[2]  # the hair's half costs time and tells nothing
        self.ids = np.flatnonzero(np.isin(body.weights.argmax(axis=1), bones) & front)
        place = np.full(len(body.v_template), -1)
        place[self.ids] = np.arange(len(self.ids))
        faces = place[body.faces]
        self.faces = faces[(faces >= 0).all(axis=1)]
        tables = body.tables
        chain = [skeleton.JOINT_INDEX[name] for name in ('head', 'jaw')]
        self._rest = torch.from_numpy(body.v_template[self.ids].astype(np.float32))
        self._dirs = torch.from_numpy(body.shapedirs[self.ids].astype(np.float32))
        self._joints = torch.from_numpy(tables.joint_template[chain].astype(np.float32))
        self._joint_dirs = torch.from_numpy(tables.joint_dirs[chain].astype(np.float32))
        self._on_jaw = torch.from_numpy(body.weights[self.ids, chain[1]].astype(np.float32))
        self._points = KeypointBody(body, POINT_NAMES[FACE_POINTS][_INNER], chain)
        rng = np.random.default_rng(0)  # the same spots on every head: an albedo space
        centres = self._rest[torch.from_numpy(rng.permutation(len(self.ids))[:_SPOTS])]
        apart = torch.cdist(self._rest, centres)
        self._spots = torch.exp(-0.5 * (apart / _SPOT_SIZE) ** 2)
        self.is_face = self._rest[:, 1] < self._rest[:, 1].max() - _HAIR
        """(V,) what is judged."""

    def local(self, variables: Mapping[str, Tensor]) -> Tensor:
        """(B, V, 3) metres from the head's joint."""
        both = torch.cat([variables['shape'], variables['expression']], dim=-1)
        size = both.shape[1]
        rest = self._rest + torch.einsum('vic,bc->bvi', self._dirs[..., :size], both)
        joints = self._joints + torch.einsum('jic,bc->bji', self._joint_dirs[..., :size], both)
        turn = rotations.rotvec_to_rotmat(variables['jaw'])
        from_jaw = rest - joints[:, 1:]
        opened = from_jaw @ turn.transpose(1, 2) - from_jaw
        return rest + self._on_jaw[:, None] * opened - joints[:, :1]

    def vertices(self, variables: Mapping[str, Tensor]) -> Tensor:
        """(B, V, 3) metres in the camera's axes."""
        turn = rotations.rotvec_to_rotmat(variables[ORIENT])
        return self.local(variables) @ turn.transpose(1, 2) + variables[CAMERA][:, None]

    def landmarks(self, variables: Mapping[str, Tensor]) -> Tensor:
        """(B, 51, 3) metres in the camera's axes."""
        found = self._points(
            variables[ORIENT], variables['jaw'], variables['shape'], variables['expression']
        )
        return found[1] + variables[CAMERA][:, None]

    def albedo(self, variables: Mapping[str, Tensor]) -> Tensor:
        """(B, V, 3) of coefficients (B, 3 + spots): a colour, and how much darker the spots."""
        base = torch.tensor(_SKIN) + 0.05 * variables[ALBEDO][:, None, :3]
        return base * (1 + 0.2 * (variables[ALBEDO][:, 3:] @ self._spots.T)[..., None])

    @property
    def as_head(self) -> Head:
        """For `reconstruct`."""
        return Head(self.vertices, self.landmarks, self.albedo)


@dataclass(frozen=True)
class Studio:
    """Heads of known truth and their pictures."""

    head: OpenHead
    shader: Shader
    truth: dict[str, Tensor]
    seen: FaceImages
    seed: int

    def start(self, of_stand_in: tuple[str, ...]) -> dict[str, Tensor]:
        """Facing us, mean face; a stand-in knows more or less the variables named."""
        count = len(self.truth['shape'])
        start = {name: torch.zeros_like(value) for name, value in self.truth.items()}
        start[ORIENT] = torch.tensor([[math.pi, 0.0, 0.0]]).repeat(count, 1)
        start[CAMERA] = torch.tensor([_PLACE]).repeat(count, 1)
        start[LIGHT][:, 0] = 1.0
        draw = normal_draw(self.seed + 5)
        for name in of_stand_in:
            error = _JAW_ERROR if name == 'jaw' else _START_ERROR
            start[name] = self.truth[name] + error * draw(tuple(self.truth[name].shape))
        return start

    def fit(
        self,
        method: Method,
        start: dict[str, Tensor],
        protocol: FaceProtocol,
        weight: float = WEIGHTS['DPoser-face'],
    ) -> dict[str, Tensor]:
        """The variables that a method finds."""
        # The terms are those of inverse kinematics; times and weight are this task's.
        steps, none = Stages(1, protocol.steps), StageWeight(0.0)
        as_ik = IkProtocol(steps, {}, none, none, protocol.schedule, protocol.denoising)
        term = face_term(*method.terms(as_ik))
        weight = weight * method.scale * len(self.truth['shape'])
        return reconstruct(
            self.seen, start, self.head.as_head, self.shader,
            lambda now, step: weight * term(now, step), protocol,
        )  # fmt: skip


def studio(body: Body, faces: np.ndarray, view: str, seed: int) -> Studio:
    """Pictures of `faces` (N, 3 + E), jaw and expression, from a view."""
    rng, count = np.random.default_rng([seed, len(view)]), len(faces)
    head = OpenHead(body)
    low, high = _VIEWS[view]
    yaw = np.radians(rng.uniform(low, high, count)) * rng.choice([-1, 1], count)
    turn = [np.tile([math.pi, 0.0, 0.0], (count, 1)), np.c_[0 * yaw, yaw, 0 * yaw]]
    turn.append(_TILT * rng.standard_normal((count, 3)))
    orient = torch.eye(3)
    for rotvec in turn:
        orient = orient @ rotations.rotvec_to_rotmat(torch.from_numpy(rotvec).float())
    lamp = rng.normal(0, 0.25, (count, 3)) + [0.0, -0.2, -0.4]  # before and above the face
    light = np.zeros((count, NUM_HARMONICS, 3))
    light[:, 0] = 0.7
    light[:, 1:4] = lamp[:, :, None]
    place = _PLACE + [0.01, 0.01, 0.05] * rng.standard_normal((count, 3))
    truth = {
        'shape': rng.standard_normal((count, skeleton.NUM_BETAS)).clip(-_MAX_BETA, _MAX_BETA),
        'jaw': faces[:, :3],
        'expression': faces[:, 3:],
        ORIENT: rotations.rotmat_to_rotvec(orient),
        CAMERA: place,
        ALBEDO: rng.standard_normal((count, 3 + _SPOTS)),
        LIGHT: light,
    }
    truth = {name: torch.as_tensor(value).float() for name, value in truth.items()}
    shader = Shader(head.faces, _FOCAL, _SIZE)
    skin = head.albedo(truth)
    skin = skin + _FINE * torch.from_numpy(rng.standard_normal(tuple(skin.shape))).float()
    colour, is_drawn = shader(head.vertices(truth), skin, truth[LIGHT])
    noise = _COLOUR_NOISE * torch.from_numpy(rng.standard_normal(tuple(colour.shape))).float()
    blank = FaceImages(colour + noise, is_drawn, torch.zeros(0), _FOCAL)
    marks = blank.project(head.landmarks(truth))
    marks = marks + _LANDMARK_PX * torch.from_numpy(rng.standard_normal(marks.shape)).float()
    return Studio(head, shader, truth, FaceImages(colour + noise, is_drawn, marks, _FOCAL), seed)


def shape_errors_mm(studio: Studio, found: Mapping[str, Tensor]) -> dict[str, float]:
    """Of the still face after rotation, translation and scale, all faces together."""
    distances = [
        np.linalg.norm(rigid_align(a, b) - b, axis=1)
        for a, b in zip(
            *(_judged(studio, one, is_still=True) for one in (found, studio.truth)), strict=True
        )
    ]
    every = 1000 * np.concatenate(distances)
    return {
        'median': float(np.median(every)), 'mean': float(every.mean()), 'std': float(every.std()),
    }  # fmt: skip


def vertex_errors_mm(studio: Studio, found: Mapping[str, Tensor]) -> np.ndarray:
    """(B,) PA-MPVPE of each face with its expression."""
    both = (_judged(studio, one, is_still=False) for one in (found, studio.truth))
    return 1000 * pa_mpjpe(*both)


def face_errors_mm(studio: Studio, found: Mapping[str, Tensor]) -> dict[str, float]:
    """Of the face with its expression: vertices, and landmarks."""
    marks = (studio.head.landmarks(one).numpy() for one in (found, studio.truth))
    return {
        'PA-MPVPE': float(vertex_errors_mm(studio, found).mean()),
        'PA-MPJPE': 1000 * float(pa_mpjpe(*marks).mean()),
    }


def _judged(studio: Studio, variables: Mapping[str, Tensor], is_still: bool) -> np.ndarray:
    """(B, V, 3) metres of the face."""
    chosen = dict(variables)
    if is_still:
        chosen |= {name: torch.zeros_like(chosen[name]) for name in ('expression', 'jaw')}
    return studio.head.local(chosen)[:, studio.head.is_face].numpy()


_NEEDS = (PACKED_NEED, BODY_NEED, baselines_need('vposer', part='face'))


@dataclass(frozen=True)
class _Table:
    """What tables 5 and S-12 differ in."""

    paper_set: str
    stand_in: str
    knows: tuple[str, ...]
    """Variables that the stand-in gives."""
    errors: Callable[[Studio, Mapping[str, Tensor]], dict[str, float]]
    columns: tuple[str, ...]
    paper: Mapping[str, tuple[float, ...]]
    measured: str

    def plan(self, options: Options) -> Plan:
        """Every prior, from scratch and after the stand-in."""
        rows, hashes = methods(options)
        count = 6 if options.is_quick else 50
        protocol = FaceProtocol(steps=200) if options.is_quick else FaceProtocol()
        body = load_body('')
        faces = face_sets(options, count)['generated']

        @cache
        def heads(view: str) -> Studio:
            return studio(body, faces, view, options.seed)

        def run(label: str, method: Callable[[], Method] | None, knows: tuple[str, ...]) -> Row:
            values = {}
            for view in _VIEWS:
                shown = heads(view)
                found = shown.start(knows)
                if method is not None:
                    found = shown.fit(method(), found, protocol, WEIGHTS[label.removeprefix('+ ')])
                values |= {
                    _name('faces', view, k): v for k, v in self.errors(shown, found).items()
                }
            is_start = method is None
            return Row(
                label, values, note='before the fit: a stand-in' if is_start else '',
                compare=self.stand_in if is_start else '',
            )  # fmt: skip

        jobs = [Job(name, lambda n=name: run(n, rows[n], ())) for name in rows]
        start = f'stand-in for {self.stand_in}'
        jobs.append(Job(start, lambda: run(start, None, self.knows)))
        jobs += [
            Job(f'+ {name}', lambda n=name: run(f'+ {n}', rows[n], self.knows)) for name in rows
        ]
        on_paper = self._columns(self.paper_set)
        return Plan(
            columns=(*self._columns('faces'), *on_paper),
            paper=paper_rows(on_paper, self.paper),
            jobs=tuple(jobs),
            data=f'{count} drawn faces that training left out, each of its own shape, skin and '
            'light, from the front and from the side',
            checkpoint_sha256=hashes,
            settings=(
                self.measured,
                f'Pictures of {_SIZE} px, {protocol.place_steps} steps on landmarks, then '
                f'{protocol.steps} on landmarks and shading; "all": heading up to 40 degrees, '
                '"side-view": 45 to 75. Weights of the priors, chosen on pictures of another '
                f'draw: {WEIGHTS}.',
                f'{start}: the truth of {", ".join(self.knows)} with half a sigma of error.',
                'Shape: ten betas, standard normal in truth; DPoser has their exact denoiser, L2 '
                'and VPoser their squared length.',
                "Needs for the paper's own figures: FLAME (flame.is.tue.mpg.de), NoW "
                '(now.is.tue.mpg.de) or WCPA, and the published predictions.',
            ),
        )

    def _columns(self, name: str) -> list[Column]:
        return [Column(_name(name, v, c), 'lower', 'mm') for v in _VIEWS for c in self.columns]


def _name(set_name: str, view: str, figure: str) -> str:
    return f'{set_name} {view} {figure}'


_NOW = _Table(
    'NoW', 'MICA', ('shape',), shape_errors_mm, ('median', 'mean', 'std'),
    {
        'w/o prior': (12.97, 16.07, 13.15, 13.15, 16.22, 13.26),
        'L2': (12.21, 15.15, 12.74, 12.29, 15.22, 12.62),
        'VPoser': (12.23, 15.13, 12.71, 12.20, 15.35, 12.98),
        'DPoser-face': (11.68, 14.58, 12.17, 11.77, 14.67, 12.34),
        'MICA': (9.03, 11.12, 9.24, 9.29, 11.71, 10.04),
        '+ w/o prior': (9.01, 11.09, 9.15, 9.47, 11.80, 9.84),
        '+ L2': (9.96, 12.37, 10.44, 10.01, 12.49, 10.62),
        '+ VPoser': (9.93, 12.34, 10.43, 10.00, 12.50, 10.65),
        '+ DPoser-face': (8.76, 10.78, 9.00, 9.18, 11.47, 9.73),
    },
    'Distance of the vertices of the still face (the shape alone) after rotation, translation and '
    'scale. The paper has distances of scans, labelled mm, probably tenths of one.',
)  # fmt: skip
_WCPA = _Table(
    'WCPA', 'EMOCA', ('shape', 'expression', 'jaw'), face_errors_mm, ('PA-MPVPE', 'PA-MPJPE'),
    {
        'w/o prior': (3.67, 4.19, 3.77, 4.46),
        'L2': (3.56, 3.90, 3.58, 4.01),
        'VPoser': (3.59, 4.01, 3.62, 4.13),
        'DPoser-face': (3.34, 3.65, 3.32, 3.61),
        'EMOCA': (3.58, 4.07, 3.78, 4.43),
        '+ w/o prior': (3.49, 3.88, 3.92, 4.56),
        '+ L2': (3.49, 3.82, 3.68, 4.28),
        '+ VPoser': (3.39, 3.65, 3.56, 4.05),
        '+ DPoser-face': (3.10, 3.54, 3.16, 3.72),
    },
    'Vertices of the face and 51 landmarks after rotation, translation and scale.',
)  # fmt: skip


@table('5', 'Face reconstruction, shape', _NEEDS)
def table_5(options: Options) -> Plan:
    """As on NoW."""
    return _NOW.plan(options)


@table('S-12', 'Face reconstruction, shape and expression', _NEEDS)
def table_s12(options: Options) -> Plan:
    """As on WCPA."""
    return _WCPA.plan(options)
