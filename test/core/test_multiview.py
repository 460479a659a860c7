"""Several cameras: who is who across the views, and what a camera less costs."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dposer_core.body_model import load_body
from dposer_core.camera import PinholeCamera
from dposer_core.config import FusionConfig
from dposer_core.multiview import MultiviewFusion, Sighting
from dposer_core.observation import NUM_POINTS, Observation
from dposer_core.triangulation import View

CAMERA = PinholeCamera(1000.0, 1000.0, 640.0, 360.0, 1280, 720)
FRAME_NS = 33_333_333
HAND = slice(91, 112)


@pytest.fixture(scope='module')
def body() -> np.ndarray:
    """(133, 3) landmarks of the body at rest, y down, about the origin."""
    tables = load_body().tables
    points = (tables.point_weights[..., None] * tables.point_template).sum(axis=1)
    return (points - points.mean(axis=0)) * (1.0, -1.0, -1.0)


def ring(count: int = 4, distance: float = 5.0) -> list[View]:
    """Level cameras of one height around the origin, 90 degrees apart if there are four."""
    rotations = [Rotation.from_rotvec([0, i * np.pi / 2, 0]).as_matrix() for i in range(count)]
    return [
        View(str(i), CAMERA, (), R, np.array([0, 0, distance])) for i, R in enumerate(rotations)
    ]


def see(
    views: list[View], people: list[np.ndarray], rng: np.random.Generator | None = None, noise=2.0
) -> list[Sighting]:
    """Everybody in every view; each detector has an order of its own."""
    rng = rng or np.random.default_rng(0)
    sightings = []
    for view in views:
        seen = []
        for i in rng.permutation(len(people)):
            pixels = view.project(people[i]) + rng.normal(0.0, noise, (NUM_POINTS, 2))
            seen.append(Observation(0, pixels, np.ones(NUM_POINTS), CAMERA))
        sightings.append(Sighting(view, seen))
    return sightings


def without(sighting: Sighting, points: slice) -> Sighting:
    people = []
    for observation in sighting.people:
        confidence = observation.confidence.copy()
        confidence[points] = 0.0
        people.append(dataclasses.replace(observation, confidence=confidence))
    return Sighting(sighting.view, people)


def placed(found: list[Observation], people: list[np.ndarray]) -> list[int]:
    """Index of the true person at which each found one stands, within 50 mm on the mean."""
    distances = np.array(
        [
            [np.linalg.norm(o.points - p, axis=1)[o.confidence > 0].mean() for p in people]
            for o in found
        ]
    )
    assert (distances.min(axis=1) < 0.05).all()
    return distances.argmin(axis=1).tolist()


def test_one_person_is_where_the_rays_meet(body: np.ndarray) -> None:
    (found,) = MultiviewFusion(FusionConfig()).step(1, see(ring(), [body]))
    assert found.dim == 3 and (found.confidence == 1.0).all()
    # 2 px at 5 m are 10 mm in one view, and less in four.
    assert np.linalg.norm(found.points - body, axis=1).mean() < 0.02


@pytest.mark.parametrize('count', [2, 3, 4])
def test_three_people_are_told_apart_whatever_the_order_of_the_detectors(
    body: np.ndarray, count: int
) -> None:
    people = [
        body + [-1.0, 0.0, 0.3],
        body * 1.08 + [0.8, -0.05, -0.6],
        body * 0.93 + [0.3, 0.08, 1.1],
    ]
    for seed in range(10):
        sightings = see(ring(count), people, np.random.default_rng(seed))
        found = MultiviewFusion(FusionConfig()).step(1, sightings)
        assert sorted(placed(found, people)) == [0, 1, 2]


def test_ids_stay_while_two_people_pass_each_other(body: np.ndarray) -> None:
    """0.5 m apart at the nearest, at 1.2 m/s each, the detectors' order new in every frame."""
    fusion, rng, ids = MultiviewFusion(FusionConfig()), np.random.default_rng(3), {}
    for k in range(50):
        x = 1.0 - 0.04 * k
        people = [body + [x, 0.0, 0.25], body + [-x, 0.0, -0.25]]
        found = fusion.step(k * FRAME_NS, see(ring(), people, rng))
        for person, index in zip(found, placed(found, people), strict=True):
            ids.setdefault(person.track_id, set()).add(index)
    assert sorted(ids.values(), key=min) == [{0}, {1}]


def test_a_hand_that_one_camera_sees_is_kept_along_its_ray(body: np.ndarray) -> None:
    sightings = see(ring(), [body], noise=0.5)
    (found,) = MultiviewFusion(FusionConfig()).step(
        1, [sightings[0], *(without(s, HAND) for s in sightings[1:])]
    )
    axes = np.linalg.svd(found.sigma[HAND])[0]  # principal axes, the longest first
    sigmas = np.linalg.svd(found.sigma[HAND])[1]
    rays = found.points[HAND] - sightings[0].view.position
    along = np.abs(np.einsum('ki,ki->k', axes[:, :, 0], rays)) / np.linalg.norm(rays, axis=1)
    assert along.min() > 0.999
    assert (sigmas[:, 0] > 5.0 * sigmas[:, 1]).all()
    error = found.points[HAND] - body[HAND]
    assert np.linalg.norm(np.linalg.solve(found.sigma[HAND], error[..., None]), axis=1).max() < 3.0


def test_a_camera_that_dies_leaves_the_others(body: np.ndarray) -> None:
    """And the last one goes on alone for a while, less and less sure of the distance."""
    fusion, views = MultiviewFusion(FusionConfig()), ring()
    ids, sigmas = set(), []
    for k in range(150):
        alive = views[: max(1, 4 - k // 10)]
        found = fusion.step(k * FRAME_NS, see(alive, [body]))
        if not found:
            break
        ids.add(found[0].track_id)
        error = np.linalg.norm(found[0].points - body, axis=1).mean()
        assert error < (0.03 if len(alive) > 1 else 0.2)
        sigmas.append(np.linalg.norm(found[0].sigma, ord=2, axis=(1, 2)).mean())
    assert len(ids) == 1
    assert 29 + 90 <= k <= 29 + 92  # 3 s after the last frame of two cameras
    assert sigmas[-1] > 1.0 > 0.3 > sigmas[30] > 0.1 > sigmas[0]


def test_nobody_begins_in_one_camera(body: np.ndarray) -> None:
    assert MultiviewFusion(FusionConfig()).step(1, see(ring(1), [body])) == []


def test_a_detector_that_takes_a_poster_for_somebody_is_overruled(body: np.ndarray) -> None:
    sightings = see(ring(), [body])
    poster = Observation(0, see(ring(1), [body])[0].people[0].points * 0.3, np.ones(133), CAMERA)
    sightings[0] = Sighting(sightings[0].view, [poster, *sightings[0].people])
    found = MultiviewFusion(FusionConfig()).step(1, sightings)
    assert placed(found, [body]) == [0]


def test_after_a_reset_ids_are_new(body: np.ndarray) -> None:
    fusion = MultiviewFusion(FusionConfig())
    (before,) = fusion.step(FRAME_NS, see(ring(), [body]))
    fusion.reset()
    (after,) = fusion.step(0, see(ring(), [body]))
    assert before.track_id != after.track_id
