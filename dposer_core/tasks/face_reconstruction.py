"""Face reconstruction: shape, expression and pose of a head from one image and its landmarks.

Source: PROTOCOLS 3.9 (the authors have not released theirs; after photometric_optimization by
H. Feng): landmarks place the head, then the image is compared with the rendered head, whose albedo
and light (nine spherical harmonics) are free as well. Deviation: the head is placed at higher
rates, as a head seen from the side starts facing us, and by a camera in metres.

The renderer is ours: triangles in a z-buffer say what is seen, and the shading of what is seen is
a torch function of vertices, albedo and light. Like the rasteriser of the source it has no
gradient at outlines. mitsuba 3 was tried: its compiler needs an LLVM newer than those of common
distributions and aborts the process with an older one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dposer_core.render import visible_faces
from dposer_core.tasks.optimise import Stages, TimeSchedule, optimise
from dposer_core.tasks.prior_term import Denoising

Variables = Mapping[str, Tensor]
Term = Callable[[Variables, int], Tensor]

ORIENT, CAMERA, ALBEDO, LIGHT = 'global_orient', 'camera', 'albedo', 'light'
NUM_HARMONICS = 9


@dataclass(frozen=True)
class FaceProtocol:
    """Weights and steps."""

    place_steps: int = 200
    place_rates: tuple[float, float] = (0.03, 3e-3)
    """Of rotation (rad) and translation (m)."""
    steps: int = 800
    rate: float = 5e-3
    camera_rate: float = 1e-3
    """m; the source moves an image scale instead."""
    photometric: float = 8.0
    """Of the mean absolute difference of colours in [0, 1]."""
    landmarks: float = 1.0
    """Of the mean distance, in halves of the image's width."""
    albedo: float = 1e-4
    """Of half the squared length of the albedo's coefficients."""
    schedule: TimeSchedule = TimeSchedule('truncated', 0.12, 0.08)
    denoising: Denoising = Denoising('sqrt_snr_squared', 'sum_per_row')


@dataclass(frozen=True)
class FaceImages:
    """B images of one head each, square, the optical axis in their middle."""

    colour: Tensor
    """(B, S, S, 3) in [0, 1]."""
    is_face: Tensor
    """(B, S, S) bool: pixels that count."""
    landmarks: Tensor
    """(B, L, 2) pixels."""
    focal: float
    """Pixels."""

    def project(self, points: Tensor) -> Tensor:
        """(..., 3) metres in the camera's axes -> (..., 2) pixels."""
        return self.focal * points[..., :2] / points[..., 2:] + self.colour.shape[1] / 2


@dataclass(frozen=True)
class Head:
    """What is rendered: functions of the variables, metres and the camera's axes."""

    vertices: Callable[[Variables], Tensor]
    """(B, V, 3)."""
    landmarks: Callable[[Variables], Tensor]
    """(B, L, 3)."""
    albedo: Callable[[Variables], Tensor]
    """(B, V, 3) in [0, 1]."""


class Shader:
    """Images of a mesh that torch can differentiate."""

    def __init__(self, faces: np.ndarray, focal: float, size: int) -> None:
        """`faces` (F, 3), counter-clockwise from outside; `focal` and `size` in pixels."""
        self._faces, self._size, self._focal = faces, size, focal
        self._corners = torch.from_numpy(faces)
        line = (torch.arange(size) + 0.5 - size / 2) / focal
        y, x = torch.meshgrid(line, line, indexing='ij')
        self._rays = torch.stack([x, y, torch.ones_like(x)], dim=-1).flatten(0, 1)

    def __call__(self, vertices: Tensor, albedo: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
        """Colours (B, S, S, 3), black where nothing is, and where something is (B, S, S).

        Args:
            vertices: (B, V, 3) metres, in the camera's axes.
            albedo: (B, V, 3).
            light: (B, 9, 3) harmonics of the light by colour.
        """
        batch, count = vertices.shape[:2]
        seen = torch.from_numpy(np.stack([self._seen(v) for v in vertices.detach().numpy()]))
        image, pixel = torch.nonzero(seen.flatten(1) >= 0, as_tuple=True)
        corners = self._corners[seen.flatten(1)[image, pixel]] + count * image[:, None]  # (P, 3)
        known = torch.cat([vertices, self._normals(vertices), albedo], dim=-1).flatten(0, 1)
        # At once, by an operation whose gradient is fast on the processor.
        at = known.index_select(0, corners.flatten()).unflatten(0, (-1, 3))  # (P, 3, 9)
        share = _shares(at[..., :3], self._rays[pixel])
        mean = (share[..., None] * at[..., 3:]).sum(1)
        normal = torch.nn.functional.normalize(mean[:, :3], dim=-1)
        lit = (harmonics(normal)[..., None] * light.index_select(0, image)).sum(1)
        colour = mean[:, 3:] * lit
        empty = colour.new_zeros(batch, self._size**2, 3)
        filled = empty.index_put((image, pixel), colour)
        return filled.unflatten(1, (self._size, self._size)), seen >= 0

    def _seen(self, vertices: np.ndarray) -> np.ndarray:
        """(S, S) face in each pixel."""
        screen = vertices.astype(np.float64)
        screen[:, :2] = screen[:, :2] / screen[:, 2:] * self._focal + self._size / 2
        return visible_faces(screen, self._faces, self._size, self._size)

    def _normals(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) unit, towards the camera's side of the surface."""
        a, b, c = (vertices.index_select(1, corner) for corner in self._corners.T)
        area = torch.linalg.cross(b - a, c - a)
        total = torch.zeros_like(vertices)
        for corner in range(3):
            total = total.index_add(1, self._corners[:, corner], area)
        return torch.nn.functional.normalize(total, dim=-1)


def harmonics(normal: Tensor) -> Tensor:
    """(..., 9) real spherical harmonics to the second order, without their constants."""
    x, y, z = normal.unbind(-1)
    values = (torch.ones_like(x), x, y, z, x * y, y * z, 3 * z**2 - 1, x * z, x**2 - y**2)
    return torch.stack(values, dim=-1)


def reconstruct(
    seen: FaceImages, start: Variables, head: Head, shader: Shader, term: Term,
    protocol: FaceProtocol | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """The variables of `start` that explain the images.

    Args:
        seen: what is to be explained.
        start: 'global_orient' (B, 3) rad, 'camera' (B, 3) metres, 'light' (B, 9, 3) and whatever
            the head has besides.
        head: the head.
        shader: of the head's faces, with the camera of the images.
        term: the priors', with their weights.
        protocol: weights and steps.
    """
    how = protocol or FaceProtocol()
    half = seen.colour.shape[1] / 2

    def distance(now: Variables) -> Tensor:
        apart = torch.linalg.norm(seen.project(head.landmarks(now)) - seen.landmarks, dim=-1)
        return how.landmarks * apart.mean(dim=1).sum() / half

    def whole(now: Mapping[str, Tensor], _stage: int, step: int) -> Tensor:
        colour, is_drawn = shader(head.vertices(now), head.albedo(now), now[LIGHT])
        counts = (is_drawn & seen.is_face)[..., None]
        error = ((colour - seen.colour).abs() * counts).flatten(1).sum(1)
        error = error / (3 * counts.flatten(1).sum(1)).clamp(min=1)
        tame = 0.5 * how.albedo * now[ALBEDO].square().sum()
        return distance(now) + how.photometric * error.sum() + tame + term(now, step)

    found = dict(start)
    placed = {ORIENT: found[ORIENT], CAMERA: found[CAMERA]}
    found |= optimise(
        placed, dict(zip(placed, how.place_rates, strict=True)), Stages(1, how.place_steps),
        lambda moving, stage, step: distance({**found, **moving}),
    )  # fmt: skip
    rates = dict.fromkeys(found, how.rate) | {CAMERA: how.camera_rate}
    return optimise(found, rates, Stages(1, how.steps), whole)


def _shares(corners: Tensor, rays: Tensor) -> Tensor:
    """(P, 3) barycentric coordinates of where rays (P, 3) from the origin meet their triangles.

    `corners` (P, 3, 3): the ray is a sum of the corners; its coefficients, made to add up to one.
    """
    a, b, c = corners.unbind(1)
    raw = torch.stack(
        [
            (rays * torch.linalg.cross(b, c)).sum(-1),
            (rays * torch.linalg.cross(c, a)).sum(-1),
            (rays * torch.linalg.cross(a, b)).sum(-1),
        ],
        dim=-1,
    )
    return raw / raw.sum(-1, keepdim=True)
