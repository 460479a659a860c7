"""Four calibrated videos -> 3D keypoints: detection in each, then triangulation. No ROS in here.

Run as a process of its own (`python -m dposer_ros.demo.multiview OUT.npz`), like the detector.
"""

import argparse
from pathlib import Path

import numpy as np

from dposer_core.errors import MediaError
from dposer_core.files import whole
from dposer_core.triangulation import triangulate_points
from dposer_core.video import decode, video_info
from dposer_ros.demo.clips import Clip, multiview_clips, multiview_rig
from dposer_ros.demo.detector import HolisticDetector
from dposer_ros.demo.lifetime import run_main

SIGMA_PX = 10.0
"""Scatter of the detections of this rig, in 1080x1920 pixels."""
MAX_ERROR = 1.5
"""Mean reprojection error of agreeing cameras, in sigmas."""
MIN_CAMERAS = 3


def detect_clip(clip: Clip, counted: int) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N, 133, 2) and confidence (N, 133) of the clip's frames at full resolution.

    Prints 'frame N' for the progress bar, counting on from `counted`.
    """
    detector = HolisticDetector()
    points, confidence = [], []
    for index, frame, _ in decode(clip.video):
        if index % clip.step:
            continue
        found = detector.detect(frame.to_ndarray(format='bgr24'))
        points.append(np.full((133, 2), np.nan) if found is None else found[0])
        confidence.append(np.zeros(133) if found is None else found[1])
        print(f'frame {counted + len(points)}', flush=True)
    return np.stack(points), np.stack(confidence)


def triangulated_clip() -> dict[str, np.ndarray]:
    """Arrays of a keypoints file (dposer_core.recording.read_npz) in the first camera's frame.

    Beside it `error_px` (N, 133) and `cameras` (N, 133): how well and by how many cameras each
    point is seen.
    """
    clips, rig = multiview_clips(), multiview_rig()
    detections, count = [], 0
    for clip in clips:
        detections.append(detect_clip(clip, count))
        count += len(detections[-1][0])
    length = min(len(points) for points, _ in detections)
    if length == 0:
        raise MediaError('the multiview videos have no common frames; reinstall pose2sim')
    frames = [
        triangulate_points(
            rig,
            np.stack([points[t] for points, _ in detections]),
            np.stack([confidence[t] for _, confidence in detections]),
            sigma_px=SIGMA_PX,
            max_error=MAX_ERROR,
            min_cameras=MIN_CAMERAS,
        )
        for t in range(length)
    ]
    rate = video_info(clips[0].video).rate / clips[0].step
    return {
        'points': rig[0].to_camera(np.stack([f.points for f in frames])),
        'confidence': np.stack([f.confidence for f in frames]),
        'layout': np.array('coco_wholebody133'),
        'stamp_ns': np.round((np.arange(length) + 1) * 1e9 / rate).astype(np.int64),
        'error_px': np.stack([f.error_px for f in frames]),
        'cameras': np.stack([f.cameras for f in frames]),
    }


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('output', type=Path, help='the .npz file to write')
    output = parser.parse_args().output
    arrays = triangulated_clip()
    with whole(output) as partial:
        np.savez_compressed(partial, **arrays)


if __name__ == '__main__':
    run_main(main)
