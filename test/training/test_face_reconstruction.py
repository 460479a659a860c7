"""The shading that torch differentiates, and the fits of tables 5 and S-12."""

import math

import numpy as np
import pytest
import torch

from dposer_core.body_model import load_body
from dposer_core.errors import ModelFileError
from dposer_core.rotations import rotvec_to_rotmat
from dposer_core.tasks.face_reconstruction import (
    FaceProtocol,
    Shader,
    harmonics,
)
from dposer_core.tasks.prior_term import NoTerm
from training.benchmarks.face_ik import Method
from training.benchmarks.face_reconstruction import (
    OpenHead,
    face_errors_mm,
    shape_errors_mm,
    studio,
)

SIZE, FOCAL = 16, 20.0
NO_PRIOR = Method(lambda protocol: (NoTerm(), NoTerm()))


@pytest.fixture(scope='module')
def body():
    torch.set_num_threads(1)
    try:
        return load_body('')
    except ModelFileError as error:
        pytest.skip(str(error))


@pytest.fixture(scope='module')
def scenes(body):
    rng = np.random.default_rng(1)
    faces = np.concatenate([0.05 * rng.random((2, 3)), rng.normal(0, 0.7, (2, 10))], axis=1)
    return {view: studio(body, faces.astype(np.float32), view, 3) for view in ('all', 'side-view')}


def tent() -> tuple[torch.Tensor, np.ndarray]:
    """(1, 5, 3) vertices, in double precision, of a pyramid whose top is nearest to the camera."""
    corners = [[-0.3, -0.3, 1.2], [0.3, -0.3, 1.25], [0.3, 0.3, 1.2], [-0.3, 0.3, 1.15]]
    vertices = torch.tensor([[*corners, [0.02, 0.01, 0.9]]], dtype=torch.float64)
    return vertices, np.array([[1, 0, 4], [2, 1, 4], [3, 2, 4], [0, 3, 4]])


def lamp() -> torch.Tensor:
    light = torch.zeros(1, 9, 3, dtype=torch.float64)
    light[0, 0], light[0, 1:4] = 0.6, torch.tensor([0.2, -0.1, -0.3])[:, None]
    return light


def test_colours_have_the_gradient_of_finite_differences():
    vertices, faces = tent()
    shader = Shader(faces, FOCAL, SIZE)
    shader._rays = shader._rays.double()
    generator = torch.Generator().manual_seed(0)
    albedo, weight = (
        torch.rand(shape, generator=generator, dtype=torch.float64)
        for shape in ((1, 5, 3), (1, SIZE, SIZE, 3))
    )

    def value(moved: torch.Tensor, light: torch.Tensor) -> torch.Tensor:
        return (shader(moved, albedo, light)[0] * weight).sum()

    # Outlines have no gradient by construction: a vertex moves along the ray through it, which
    # leaves what is seen where as it is.
    ray = vertices[0, 4] / vertices[0, 4].norm()
    step, light = 1e-6 * ray, lamp()

    def moved(by: torch.Tensor) -> torch.Tensor:
        return torch.cat([vertices[:, :4], (vertices[0, 4] + by)[None, None]], dim=1)

    along = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value(moved(along * ray), light).backward()
    difference = (value(moved(step), light) - value(moved(-step), light)) / 2e-6
    assert float(along.grad) == pytest.approx(float(difference), rel=1e-5)
    assert abs(float(along.grad)) > 0.1


def test_a_surface_facing_the_camera_has_the_colour_of_the_light_from_there():
    vertices = torch.tensor([[[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]])
    faces = np.array([[1, 0, 3], [1, 3, 2]])  # counter-clockwise as the camera sees them
    albedo = torch.tensor([0.8, 0.5, 0.2]).expand(1, 4, 3)
    colour, is_drawn = Shader(faces, FOCAL, SIZE)(vertices, albedo, lamp().float())
    assert bool(is_drawn.all())
    towards = harmonics(torch.tensor([0.0, 0.0, -1.0])) @ lamp()[0].float()
    assert colour[0, 5, 7].numpy() == pytest.approx((albedo[0, 0] * towards).numpy(), abs=1e-5)


def test_what_is_behind_is_not_seen():
    vertices, faces = tent()
    front = vertices.float()
    both = torch.cat([front, 2 * front], dim=1)  # the same, twice as far away: hidden all over
    light = lamp().float()
    alone = Shader(faces, FOCAL, SIZE)(front, torch.ones(1, 5, 3), light)
    hidden = Shader(np.concatenate([faces, faces + 5]), FOCAL, SIZE)(
        both, torch.ones(1, 10, 3), light
    )
    assert torch.equal(alone[1], hidden[1])
    assert hidden[0].numpy() == pytest.approx(alone[0].numpy(), abs=1e-5)


def test_head_is_that_of_the_body_model(body):
    rng = np.random.default_rng(0)
    jaw, betas, expression = (rng.normal(0, s, (1, n)) for s, n in ((0.1, 3), (1, 10), (1, 10)))
    pose = np.zeros((1, 55, 3))
    pose[:, 22] = jaw
    head = OpenHead(body)
    root = body.joints(pose, betas, expression)[:, 15:16]
    expected = body.vertices(pose, betas, expression)[:, head.ids] - root
    values = {'shape': betas, 'expression': expression, 'jaw': jaw}
    found = head.local({name: torch.from_numpy(v).float() for name, v in values.items()}).numpy()
    own = np.isin(body.weights[head.ids].argmax(1), [15, 22]) & (
        body.weights[head.ids][:, [15, 22]].sum(1) > 0.999
    )
    assert own.mean() > 0.8
    assert found[:, own] == pytest.approx(expected[:, own], abs=2e-4)  # metres


def test_truth_has_no_error_and_a_heading_does_not_count(scenes):
    scene = scenes['all']
    turned = scene.truth | {'global_orient': scene.truth['global_orient'] + 0.1}
    assert shape_errors_mm(scene, turned)['mean'] == pytest.approx(0.0, abs=0.01)
    assert face_errors_mm(scene, turned)['PA-MPJPE'] == pytest.approx(0.0, abs=0.01)


def test_shading_and_landmarks_find_the_face(scenes):
    scene = scenes['all']
    start = scene.start(())
    found = scene.fit(NO_PRIOR, start, FaceProtocol(place_steps=100, steps=60))
    before, after = (face_errors_mm(scene, one)['PA-MPJPE'] for one in (start, found))
    assert after < 0.8 * before


def test_heads_seen_from_the_side_are_turned(scenes):
    scene = scenes['side-view']
    start = scene.start(())
    found = scene.fit(NO_PRIOR, start, FaceProtocol(steps=1))
    true, *turns = (rotvec_to_rotmat(one['global_orient']) for one in (scene.truth, start, found))
    apart = [(turn - true).flatten(1).norm(dim=1) / math.sqrt(2) for turn in turns]
    assert float(apart[0].min()) > 0.6  # rad, nearly
    assert float((apart[1] / apart[0]).max()) < 0.5
