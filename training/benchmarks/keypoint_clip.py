"""Writes the keypoints that `dposer benchmark latency --motion` replays.

Held-out real motion on bodies of random shape, projected with 2 px noise as in the truth tests,
clip after clip with a pause in between that is long enough for everybody to be lost.

`python -m training.benchmarks.keypoint_clip`
"""

from pathlib import Path

import numpy as np

from dposer_core.body_model import load_body
from training.benchmarks.truth import CAMERA, SCENARIOS, truth_clips

OUTPUT = Path(__file__).parents[2] / 'dposer_ros' / 'data' / 'benchmark_keypoints.npz'
_NUM_CLIPS = 10
_PAUSE_NS = 3_000_000_000
_PER_PIXEL = 16  # points are stored in sixteenths of a pixel


def main() -> None:
    """Write the file."""
    stamps: list[int] = []
    points, confidence = [], []
    for clip in truth_clips(load_body(), SCENARIOS['2d'], _NUM_CLIPS, frames=60):
        offset = stamps[-1] + _PAUSE_NS - clip.observations[0].stamp_ns if stamps else 0
        for observation in clip.observations:
            stamps.append(observation.stamp_ns + offset)
            points.append(np.round(observation.points * _PER_PIXEL) / _PER_PIXEL)
            confidence.append(observation.confidence)
    OUTPUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        OUTPUT,
        points=np.array(points, dtype=np.float32),
        confidence=np.array(confidence, dtype=np.float32),
        layout='coco_wholebody133',
        stamp_ns=np.array(stamps),
        size=np.array([CAMERA.width, CAMERA.height]),
        camera=np.array([CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy]),
    )
    print(f'{OUTPUT}: {len(stamps)} frames, {OUTPUT.stat().st_size / 1e3:.0f} kB')


if __name__ == '__main__':
    main()
