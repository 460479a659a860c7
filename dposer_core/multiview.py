"""People seen by several cameras at once: who is who across the views, and their points in 3D."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from dposer_core.config import FitConfig, FusionConfig
from dposer_core.evidence import BODY_POINTS, point_sigma
from dposer_core.observation import NUM_POINTS, Observation
from dposer_core.triangulation import (
    Triangulated,
    View,
    intersect,
    on_ray,
    triangulate_points,
)

_HEIGHT = 1.7  # m, of a person, for the noise of the detector: it scales with the size seen
_MAX_COST = 1e6
_MIN_SHARED_POINTS = 4
_KEPT_GATE = 0.06  # largest distance to where a person was last, in heights of the person,
_SPEED = 2.0  # heights per second, and the way made meanwhile
_NEW_GATE = 0.03  # largest reprojection error of a pair of views, in heights of the person
_SIZES = (0.3, 2.8)  # m: whom two views make larger or smaller than this is two people
_MEMORY = 1.0  # s, after which a person comes back under a new id
_DEPTH_SIGMA = 0.2  # m, of a point of one camera about that of its neighbour in the picture
_DRIFT = 0.5  # m/s, growth of that sigma when nobody else sees the person either
_ALONE = 3.0  # s, for which one camera goes on alone


@dataclass(frozen=True)
class Sighting:
    """What one camera sees."""

    view: View
    """Where it stands; its `camera` is that of the observations, and it has no distortion."""
    people: Sequence[Observation]
    """2D, in ideal pixels."""


@dataclass
class _Person:
    """Somebody, and the views that see him or her now."""

    track_id: str
    points: np.ndarray  # (133, 3) m, world frame, as of the last frame
    present: np.ndarray  # (133,) bool
    stamp_ns: int
    met_ns: int | None = None  # stamp of the last frame in which the rays of two cameras met
    seen_by: list[tuple[View, Observation]] = field(default_factory=list)


class MultiviewFusion:
    """One 3D observation per person from the 2D ones of several calibrated cameras.

    A person who was there before is found by reprojection, one who is new by views whose rays
    meet (Hungarian in both). Two cameras alone cannot always tell: people of one height whom both
    see under one elevation can be crossed. A third view, or the frame before, decides.

    Args:
        config: noise and thresholds.
    """

    def __init__(self, config: FusionConfig) -> None:
        self.config = config
        self._noise = FitConfig(sigma_px_relative=config.sigma_px_relative)
        self._people: list[_Person] = []
        self._ids = itertools.count(1)

    def reset(self) -> None:
        """Forget everybody; ids are not used again."""
        self._people.clear()

    def step(self, stamp_ns: int, sightings: Sequence[Sighting]) -> list[Observation]:
        """The people of one instant in the world frame, with the Cholesky factors of all points.

        Nobody begins without two cameras in agreement. A point that one camera alone sees stands
        on its ray near the rest of the person, and its covariance is long along the ray.
        """
        self._people = [p for p in self._people if abs(stamp_ns - p.stamp_ns) * 1e-9 < _MEMORY]
        for person in self._people:
            person.seen_by = []
        unknown = [self._recognise(stamp_ns, sighting) for sighting in sightings]
        newcomers = self._meet(stamp_ns, sightings, unknown)
        fused = [(p, self._fuse(stamp_ns, p)) for p in [*self._people, *newcomers]]
        self._people += [p for p, observation in fused[len(self._people) :] if observation]
        return [observation for _, observation in fused if observation is not None]

    # --- who is who --------------------------------------------------------------------------

    def _recognise(self, stamp_ns: int, sighting: Sighting) -> list[Observation]:
        """Give what a camera sees to the people known; returns what is left over."""
        cost = np.array(
            [[self._distance(p, sighting.view, o) for o in sighting.people] for p in self._people]
        ).reshape(len(self._people), len(sighting.people))
        left = set(range(len(sighting.people)))
        for row, column in zip(*linear_sum_assignment(cost), strict=True):
            silence = max(stamp_ns - self._people[row].stamp_ns, 0) * 1e-9
            if cost[row, column] < _KEPT_GATE + _SPEED * silence:
                self._people[row].seen_by.append((sighting.view, sighting.people[column]))
                left.discard(int(column))
        return [sighting.people[i] for i in sorted(left)]

    def _distance(self, person: _Person, view: View, observation: Observation) -> float:
        """Median distance of body points to where they were, in heights of the person."""
        before = view.project(person.points[BODY_POINTS])
        shared = (
            self._present(observation)[BODY_POINTS]
            & person.present[BODY_POINTS]
            & np.isfinite(before).all(axis=1)
        )
        if shared.sum() < _MIN_SHARED_POINTS:
            return _MAX_COST
        moved = np.linalg.norm(before - observation.points[BODY_POINTS], axis=1)[shared]
        depth = np.median(view.to_camera(person.points[BODY_POINTS][shared])[:, 2])
        return float(np.median(moved) / (view.camera.fy * _HEIGHT / max(depth, 0.1)))

    def _meet(
        self,
        stamp_ns: int,
        sightings: Sequence[Sighting],
        unknown: Sequence[Sequence[Observation]],
    ) -> list[_Person]:
        """New people: groups of what at least two cameras see and nobody known explains."""
        groups: list[list[tuple[View, Observation]]] = []
        for sighting, people in zip(sightings, unknown, strict=True):
            known = len(groups)
            cost = np.array(
                [
                    [
                        np.mean([self._disagreement(m, (sighting.view, o)) for m in g])
                        for o in people
                    ]
                    for g in groups
                ]
            ).reshape(known, len(people))
            left = set(range(len(people)))
            for row, column in zip(*linear_sum_assignment(cost), strict=True):
                if cost[row, column] < _NEW_GATE:
                    groups[row].append((sighting.view, people[column]))
                    left.discard(int(column))
            groups += [[(sighting.view, people[i])] for i in sorted(left)]
        newcomers = []
        for group in groups:
            if len(group) > 1:
                points, present = self._rough(group[0], group[1])
                newcomers.append(
                    _Person(str(next(self._ids)), points, present, stamp_ns, None, group)
                )
        return newcomers

    def _disagreement(self, a: tuple[View, Observation], b: tuple[View, Observation]) -> float:
        """Median reprojection error of the body if both saw one person, in heights of it."""
        points, present = self._rough(a, b)
        points = points[present]
        if len(points) < _MIN_SHARED_POINTS:
            return _MAX_COST
        if not _SIZES[0] < np.ptp(points, axis=0).max() < _SIZES[1]:
            return _MAX_COST
        errors = []
        for view, observation in (a, b):
            error = np.linalg.norm(view.project(points) - observation.points[present], axis=1)
            depth = view.to_camera(points)[:, 2]
            errors.append(error * depth / (view.camera.fy * _HEIGHT))
        return float(np.median(errors)) if np.isfinite(errors).all() else _MAX_COST

    def _rough(
        self, a: tuple[View, Observation], b: tuple[View, Observation]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(133, 3) body points as two views give them, and (133,) which of them there are."""
        present = self._present(a[1]) & self._present(b[1])
        present[BODY_POINTS.stop :] = False
        pixels = np.stack([a[1].points[present], b[1].points[present]])
        found, _, errors = intersect((a[0], b[0]), pixels, np.ones(pixels.shape[:2]))
        points = np.zeros((NUM_POINTS, 3))
        points[present] = found
        present[np.flatnonzero(present)[~np.isfinite(errors).all(axis=0)]] = False
        return points, present

    # --- where they are ----------------------------------------------------------------------

    def _fuse(self, stamp_ns: int, person: _Person) -> Observation | None:
        """The person's observation in 3D, remembered for the next frame; None if there is none."""
        if not person.seen_by:
            return None
        views = [view for view, _ in person.seen_by]
        pixels, confidence = (
            np.stack([getattr(observation, name) for _, observation in person.seen_by])
            for name in ('points', 'confidence')
        )
        centre = np.median(person.points[person.present], axis=0)
        sigma_px = np.stack([self._sigma_px(v, o, centre) for v, o in person.seen_by])
        found = triangulate_points(
            views, pixels, confidence, sigma_px, self.config.input.confidence_threshold,
            self.config.max_error,
        )  # fmt: skip
        present = found.cameras > 0
        if present[BODY_POINTS].sum() >= _MIN_SHARED_POINTS:
            person.points, person.present, person.met_ns = found.points, present, stamp_ns
        elif person.met_ns is None or stamp_ns - person.met_ns > _ALONE * 1e9:
            return None
        self._add_rays(stamp_ns, person, found, sigma_px)
        present = found.confidence > 0.0
        if present[BODY_POINTS].sum() < _MIN_SHARED_POINTS:
            return None
        person.stamp_ns = stamp_ns
        if person.met_ns != stamp_ns:
            person.points, person.present = found.points, present
        points = np.where(present[:, None], found.points, 0.0)
        covariance = np.where(present[:, None, None], found.covariance, np.eye(3))
        factor = np.linalg.cholesky(covariance)
        return Observation(stamp_ns, points, found.confidence, None, factor, person.track_id)

    def _add_rays(
        self, stamp_ns: int, person: _Person, found: Triangulated, sigma_px: np.ndarray
    ) -> None:
        """Put the points that one camera alone sees where the person is."""
        seen = np.stack([self._present(observation) for _, observation in person.seen_by])
        along = float(np.hypot(_DEPTH_SIGMA, _DRIFT * (stamp_ns - person.met_ns) * 1e-9))
        for i, (view, observation) in enumerate(person.seen_by):
            k = np.flatnonzero(seen[i] & (seen.sum(axis=0) == 1))
            if k.size:
                pixels = observation.points[k]
                depth = _depth_of_neighbours(view, pixels, person.points[person.present])
                found.points[k], found.covariance[k] = on_ray(
                    view, pixels, depth, sigma_px[i, k], along
                )
                found.confidence[k] = observation.confidence[k]

    def _sigma_px(self, view: View, observation: Observation, centre: np.ndarray) -> np.ndarray:
        """(133,) noise of the detector for a person at `centre`, in pixels."""
        if observation.sigma is not None and observation.sigma.ndim == 3:
            return np.linalg.norm(observation.sigma, axis=(1, 2)) / np.sqrt(2.0)
        depth = max(float(view.to_camera(centre)[2]), 0.1)
        return point_sigma(observation, self._noise, view.camera.fy * _HEIGHT / depth)

    def _present(self, observation: Observation) -> np.ndarray:
        return observation.confidence >= max(self.config.input.confidence_threshold, 1e-6)


def _depth_of_neighbours(view: View, pixels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(K,) depth of the one of `points` (M, 3) that is nearest in the picture to each of K."""
    known = view.project(points)
    known[~np.isfinite(known)] = np.inf
    distance = np.linalg.norm(pixels[:, None] - known, axis=2)
    return np.maximum(view.to_camera(points)[distance.argmin(axis=1), 2], 0.1)
