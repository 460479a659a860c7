"""Several people: which keypoints belong to whom, and one fitter each, run side by side."""

import dataclasses
import itertools
import time
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from dposer_core.config import TURNS, Config
from dposer_core.errors import ObservationError
from dposer_core.evidence import BODY_POINTS
from dposer_core.fitter import LivePrior, PoseFitter, in_lockstep
from dposer_core.observation import Observation
from dposer_core.state import FitResult, Status

if TYPE_CHECKING:
    from dposer_core.body_model import BodyTables

_MAX_COST = 1e6
# What a matching detector id makes up for, as a share of a body height. Detectors exchange ids
# where people cross, and there geometry knows better; of somebody unseen for long it knows less.
_ID_BONUSES = 0.015, 0.15
_ID_TIMES = 0.1, 0.5  # s unseen, of these
_MIN_SHARED_POINTS = 3


class PeopleFitter:
    """Tracks every person; frames must come in the order of their stamps.

    Args:
        tables: body model.
        prior: whole-body denoiser; None fits without a prior.
        config: all parameters.
    """

    def __init__(self, tables: 'BodyTables', prior: LivePrior | None, config: Config) -> None:
        self._tables = tables
        self._prior = prior
        self.config = config
        self._ids = itertools.count(1)
        self._tracks: list[PoseFitter] = []
        self._stamp_ns: int | None = None

    def step(
        self,
        stamp_ns: int,
        observations: list[Observation],
        budget_s: float | None = None,
        foremost: str = '',
    ) -> list[FitResult]:
        """Fit one frame.

        No more than `input.max_people` are fitted in a frame. Where there are more, they take
        turns: whoever was fitted longest ago comes first, and the others are predicted.

        Args:
            stamp_ns: of the frame; must be newer than the last.
            observations: people in it, may be empty.
            budget_s: time for all fits together; None runs all configured iterations
                (deterministic).
            foremost: body id of who never waits for a turn.

        Returns:
            One result per person, those fitted longest first; a person that has just been lost
            appears once more with status LOST.

        Raises:
            ObservationError: the stamp is not newer than the last one.
        """
        if self._stamp_ns is not None and stamp_ns <= self._stamp_ns:
            raise ObservationError(
                f'frame stamp {stamp_ns} ns is not newer than the last one, {self._stamp_ns} ns; '
                'reset() the fitter when time starts again'
            )
        self._stamp_ns = stamp_ns
        matched, fresh = self._assign(stamp_ns, observations)
        matched, fresh = self._turn(matched, fresh, foremost)
        for observation in fresh:
            track = PoseFitter(self._tables, self._prior, self.config, f'p{next(self._ids):04d}')
            self._tracks.append(track)
            matched[len(self._tracks) - 1] = observation
        clock = time.perf_counter()
        fits = [self._tracks[i].fit(matched[i], clock, budget_s) for i in sorted(matched)]
        fitted = dict(zip(sorted(matched), in_lockstep(self._prior, fits), strict=True))
        results = [
            fitted[i] if i in fitted else track.predict(stamp_ns)
            for i, track in enumerate(self._tracks)
        ]
        return self._cleaned(stamp_ns, results)

    def predict(self, stamp_ns: int) -> list[FitResult]:
        """The people at `stamp_ns` when no frame has come (silence)."""
        return self._cleaned(stamp_ns, [track.predict(stamp_ns) for track in self._tracks])

    def configure(self, config: Config) -> None:
        """Use other live parameters from the next frame on."""
        self.config = config
        for track in self._tracks:
            track.configure(config)

    def reset(self) -> None:
        """Forget everybody; body ids are not used again."""
        self._tracks.clear()
        self._stamp_ns = None

    def forget(self, body_id: str) -> None:
        """Forget one person; whoever stands there comes back under a new id."""
        self._tracks = [track for track in self._tracks if track.body_id != body_id]

    def fix_shape(self, body_id: str, betas: np.ndarray) -> None:
        """Keep these betas (10,) from the next frame on; nothing happens if nobody has this id."""
        for track in self._tracks:
            if track.body_id == body_id:
                track.fix_shape(betas)

    def calibrate_shape(self, body_id: str, seconds: float) -> None:
        """Estimate the betas anew for a while, then freeze them."""
        for track in self._tracks:
            if track.body_id == body_id:
                track.calibrate_shape(seconds)

    def _assign(
        self, stamp_ns: int, observations: list[Observation]
    ) -> tuple[dict[int, Observation], list[Observation]]:
        """Track index -> observation (Hungarian on predicted landmarks), and who is new."""
        if not self._tracks or not observations:
            return {}, list(observations)
        expected = [track.predict(stamp_ns) for track in self._tracks]
        cost = np.array([[self._distance(e, o) for o in observations] for e in expected])
        cost -= [
            [self._id_bonus(track, stamp_ns, o) for o in observations] for track in self._tracks
        ]
        matched, taken = {}, set()
        for row, column in zip(*linear_sum_assignment(cost), strict=True):
            if cost[row, column] <= self.config.track.gate_distance:
                matched[int(row)] = observations[column]
                taken.add(int(column))
        return matched, [o for i, o in enumerate(observations) if i not in taken]

    def _turn(
        self, matched: dict[int, Observation], fresh: list[Observation], foremost: str
    ) -> tuple[dict[int, Observation], list[Observation]]:
        """Those of the arguments of `step` and `_assign` that are fitted in this frame."""
        places = self.config.input.max_people
        longest = sorted(matched, key=lambda i: self._tracks[i].last.state.stamp_ns)
        first = [i for i in longest if self._tracks[i].body_id == foremost]
        # Where everybody waits for a turn, one newcomer a frame, the nearest first.
        room = min(max(places - len(matched), 1), TURNS * places - len(self._tracks))
        fresh = sorted(fresh, key=_size, reverse=True)[: max(min(room, places - len(first)), 0)]
        others = [i for i in longest if i not in first][: places - len(first) - len(fresh)]
        return {i: matched[i] for i in first + others}, fresh

    def _distance(self, predicted: FitResult | None, observation: Observation) -> float:
        """Mean distance of body points to the predicted ones, in heights of the person."""
        shared = observation.confidence[BODY_POINTS] >= self.config.input.confidence_threshold
        if predicted is None or shared.sum() < _MIN_SHARED_POINTS:
            return _MAX_COST
        points = predicted.state.landmarks[BODY_POINTS]
        height = self._tables.height_template
        if observation.dim == 2:
            depth = np.maximum(points[:, 2:], 0.1)
            camera = observation.camera
            points = points[:, :2] / depth * [camera.fx, camera.fy] + [camera.cx, camera.cy]
            height *= camera.fy / float(np.median(depth))
        distance = np.linalg.norm(points - observation.points[BODY_POINTS], axis=1)
        return float(distance[shared].mean() / height)

    @staticmethod
    def _id_bonus(track: PoseFitter, stamp_ns: int, observation: Observation) -> float:
        if not observation.track_id or track.last is None:
            return 0.0
        if observation.track_id != track.last.track_id:
            return 0.0
        unseen = (stamp_ns - track.last.state.stamp_ns) * 1e-9
        return float(np.interp(unseen, _ID_TIMES, _ID_BONUSES))

    def _cleaned(self, stamp_ns: int, results: list[FitResult | None]) -> list[FitResult]:
        """Drop tracks that never started and those unseen for too long."""
        kept, tracks = [], []
        for track, result in zip(self._tracks, results, strict=True):
            if result is None:
                continue
            if (stamp_ns - track.last.state.stamp_ns) * 1e-9 >= self.config.occlusion.lost_timeout:
                kept.append(dataclasses.replace(result, status=Status.LOST))
            else:
                kept.append(result)
                tracks.append(track)
        self._tracks = tracks
        return kept


def _size(observation: Observation) -> float:
    """Extent of the visible body points: who is large in the picture is near."""
    points = observation.points[observation.confidence > 0.0]
    return float(np.ptp(points, axis=0).max()) if len(points) else 0.0
