"""The figures of a run: counts, latency, reprojection error, how joints were obtained."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from dposer_core.body_model import Body
from dposer_core.metrics import (
    LIMB_HIPS,
    LIMB_JOINTS,
    LIMB_POINTS,
    acceleration,
    mpjpe,
    pa_mpjpe,
)
from dposer_core.skeleton import LEFT_HAND_JOINTS, RIGHT_HAND_JOINTS
from dposer_core.state import Source
from dposer_ros.demo.bag import DemoRecording, StateRecord
from dposer_ros.demo.run import RunRecord

CONFIDENT = 0.3  # keypoints above this confidence count, as in the node's default
POINT_GROUPS = {
    'body': slice(0, 17),
    'feet': slice(17, 23),
    'face': slice(23, 91),
    'hands': slice(91, 133),
}
JOINT_GROUPS = {
    'body': list(range(22)),
    'hands': [
        *range(LEFT_HAND_JOINTS.start, LEFT_HAND_JOINTS.stop),
        *range(RIGHT_HAND_JOINTS.start, RIGHT_HAND_JOINTS.stop),
    ],
    'all': list(range(55)),
}
NODE_STAGES = ('age_in', 'queue', 'preprocess', 'fit', 'postprocess', 'total')


def make_report(recording: DemoRecording, run: RunRecord, body: Body) -> dict:
    """All figures of one run, ready for JSON. Milliseconds, pixels, shares in [0, 1]."""
    states = [state for stamp in answered_stamps(recording) for state in recording.states[stamp]]
    report = {
        'model': body.tables.name,
        'frames': frame_counts(recording, run),
        'latency_ms': latencies(recording, states),
        'joint_sources': joint_sources(states),
        'jitter_m_s2': jitter(recording),
        'memory_mib': {name: round(value, 1) for name, value in run.memory_mib.items()},
    }
    if recording.camera is not None:
        report['reprojection'] = reprojection(recording, body)
    return report


def answered_stamps(recording: DemoRecording) -> list[int]:
    """Stamps of keypoint frames with an answer; in silence there are other, predicted states."""
    return [stamp for stamp in sorted(recording.keypoints) if stamp in recording.states]


def frame_counts(recording: DemoRecording, run: RunRecord) -> dict[str, float]:
    """How many frames came in, were answered, and where the others went."""
    answered = answered_stamps(recording)
    seconds = (answered[-1] - answered[0]) * 1e-9 if len(answered) > 1 else 0.0
    detected = len(recording.keypoints)
    return {
        'in': run.played,
        'with_keypoints': detected,
        'without_people': sum(not k.people for k in recording.keypoints.values()),
        'answered': len(answered),
        'with_state': sum(bool(recording.states[stamp]) for stamp in answered),
        'predicted_in_silence': len(recording.states) - len(answered),
        'dropped_before_the_node': run.played - detected,
        'dropped_by_the_node': detected - len(answered),
        'answered_share_of_keypoints': len(answered) / max(detected, 1),
        'rate_hz': (len(answered) - 1) / seconds if seconds > 0 else 0.0,
    }


def latencies(recording: DemoRecording, states: Sequence[StateRecord]) -> dict[str, dict]:
    """p50, p95, p99 and maximum of every stage, milliseconds."""
    stages = {
        'image_to_keypoints': [
            (record.received_ns - stamp) * 1e-6 for stamp, record in recording.keypoints.items()
        ],
        'image_to_state': [(s.received_ns - s.stamp_ns) * 1e-6 for s in states],
    }
    for stage in NODE_STAGES:
        stages[f'node_{stage}'] = [state.stats[stage] * 1e3 for state in states]
    stages['node_publish'] = [seconds * 1e3 for seconds in recording.publish_seconds]
    return {name: _quantiles(values) for name, values in stages.items() if values}


def joint_sources(states: Sequence[StateRecord]) -> dict[str, dict[str, float]]:
    """Share of joints that were observed, completed and so on, by group."""
    if not states:
        return {}
    source = np.stack([state.source for state in states])
    return {
        group: {s.name.lower(): float((source[:, joints] == s).mean()) for s in Source}
        for group, joints in JOINT_GROUPS.items()
    }


def jitter(recording: DemoRecording) -> float | None:
    """Median acceleration of the main person's 22 body joints, over consecutive frames."""
    runs: list[list[StateRecord]] = [[]]
    for stamp in answered_stamps(recording):
        people = recording.states[stamp]
        last = runs[-1][-1] if runs[-1] else None
        if not people:
            runs.append([])
            continue
        if last is not None and (last.body_id != people[0].body_id):
            runs.append([])
        runs[-1].append(people[0])
    values = [value for run in runs if len(run) > 2 for value in _acceleration(run)]
    return float(np.median(values)) if values else None


def _acceleration(run: list[StateRecord]) -> np.ndarray:
    stamps = np.array([state.stamp_ns for state in run]) * 1e-9
    period = float(np.median(np.diff(stamps)))
    joints = np.stack([state.joints[:22] for state in run])
    regular = np.abs(np.diff(stamps) - period) < 0.1 * period
    return acceleration(joints, period)[regular[1:] & regular[:-1]].ravel()


def reprojection(recording: DemoRecording, body: Body) -> dict[str, dict[str, float]]:
    """Distance of projected body landmarks to the detector's points, by group.

    Median and 95th percentile in pixels, and the median in percent of the person's height in the
    image: standing height times focal length over distance.
    """
    distances: dict[str, list[np.ndarray]] = {name: [] for name in POINT_GROUPS}
    relative: dict[str, list[np.ndarray]] = {name: [] for name in POINT_GROUPS}
    for points, confidence, projected, height_px in _matches(recording, body):
        error = np.linalg.norm(points - projected, axis=1)
        for name, group in POINT_GROUPS.items():
            seen = (confidence[group] > CONFIDENT) & np.isfinite(error[group])
            distances[name].append(error[group][seen])
            relative[name].append(100 * error[group][seen] / height_px)
    result = {}
    for name in POINT_GROUPS:
        error = np.concatenate(distances[name] or [np.zeros(0)])
        if len(error):
            result[name] = {
                'median_px': float(np.median(error)),
                'p95_px': float(np.percentile(error, 95)),
                'median_percent_of_height': float(np.median(np.concatenate(relative[name]))),
            }
    return result


def _matches(
    recording: DemoRecording, body: Body
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """Every detection with the state nearest to it: points, confidence, projection, height."""
    camera, tables = recording.camera, body.tables
    for stamp in answered_stamps(recording):
        people = recording.states[stamp]
        for raw, confidence in recording.keypoints[stamp].people:
            points = recording.undistort(raw)
            best = None
            for state in people:
                landmarks = body.landmarks(
                    state.pose_rotvec, state.betas, state.expression, state.transl
                )[0]
                projected = camera.project(landmarks)
                distance = np.linalg.norm((points - projected)[:17], axis=1)
                known = distance[np.isfinite(distance)]
                error = np.median(known) if len(known) else np.inf
                coefficients = np.concatenate([state.betas, state.expression])
                stature = tables.height_template + tables.height_dirs @ coefficients
                height_px = stature * camera.fy / max(state.joints[0, 2], 0.1)
                if best is None or error < best[0]:
                    best = (error, projected, height_px)
            if best is not None:
                yield points, confidence, best[1], best[2]


def compare_with_triangulation(
    recording: DemoRecording, start_ns: int, truth: np.ndarray, truth_rate: float
) -> dict[str, float]:
    """Errors of the main person's 12 limb joints against triangulated points, millimetres.

    Args:
        recording: a run whose output frame is that of `truth`.
        start_ns: stamp of the clip's first frame.
        truth: (N, 133, 3) metres; NaN where not triangulated.
        truth_rate: frames per second of `truth`; its first frame is at `start_ns`.
    """
    predicted, targets = [], []
    for stamp, people in sorted(recording.states.items()):
        frame = round((stamp - start_ns) * 1e-9 * truth_rate)
        if people and 0 <= frame < len(truth):
            predicted.append(people[0].joints[LIMB_JOINTS])
            targets.append(truth[frame, LIMB_POINTS])
    if not predicted:
        return {'frames': 0}
    predicted, targets = np.stack(predicted), np.stack(targets)
    return {
        'frames': len(predicted),
        'mpjpe_mm': _mean_mm(mpjpe(predicted, targets, root=LIMB_HIPS)),
        'pa_mpjpe_mm': _mean_mm(pa_mpjpe(predicted, targets)),
        'absolute_mpjpe_mm': _mean_mm(mpjpe(predicted, targets)),
    }


def print_report(report: dict, console: Console) -> None:
    """The report as tables."""
    frames = report['frames']
    console.print(
        f'frames: {frames["in"]} in, {frames["with_keypoints"]} detected'
        f' ({frames["without_people"]} without people), {frames["answered"]} answered,'
        f' {frames["dropped_before_the_node"]} dropped before the node,'
        f' {frames["dropped_by_the_node"]} by it; {frames["rate_hz"]:.1f} Hz'
    )
    table = Table('latency, ms', 'p50', 'p95', 'p99', 'max')
    for name, q in report['latency_ms'].items():
        table.add_row(
            name.replace('_', ' '), *(f'{q[k]:.1f}' for k in ('p50', 'p95', 'p99', 'max'))
        )
    console.print(table)
    if report.get('reprojection'):
        table = Table('reprojection', 'median px', 'p95 px', 'median % of height')
        for name, e in report['reprojection'].items():
            values = (e['median_px'], e['p95_px'], e['median_percent_of_height'])
            table.add_row(name, *(f'{value:.1f}' for value in values))
        console.print(table)
    if report['joint_sources']:
        names = [source.name.lower() for source in Source]
        table = Table('joints, %', *names)
        for group, shares in report['joint_sources'].items():
            table.add_row(group, *(f'{100 * shares[name]:.0f}' for name in names))
        console.print(table)
    if 'triangulation_error_px' in report:
        console.print(
            f'triangulation: median reprojection error {report["triangulation_error_px"]:.1f} px'
            f' of the original videos; {report["frames_3d"]["answered"]} of'
            f' {report["frames_3d"]["in"]} 3D frames answered'
        )
    for title, key in (
        ('monocular fit against triangulation', 'monocular_against_triangulation'),
        ('fit of the 3D keypoints against them', 'fit_3d_against_triangulation'),
    ):
        if report.get(key, {}).get('frames'):
            e = report[key]
            console.print(
                f'{title}, 12 limb joints, {e["frames"]} frames: MPJPE {e["mpjpe_mm"]:.0f} mm,'
                f' PA-MPJPE {e["pa_mpjpe_mm"]:.0f} mm, absolute {e["absolute_mpjpe_mm"]:.0f} mm'
            )
    memory = ', '.join(f'{name} {value:.0f}' for name, value in report['memory_mib'].items())
    console.print(f'largest memory, MiB: {memory}')


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {'p50': float(p50), 'p95': float(p95), 'p99': float(p99), 'max': float(max(values))}


def _mean_mm(errors: np.ndarray) -> float:
    return float(np.nanmean(errors) * 1000)
