"""A detector that never rests: mediapipe on the pictures of a video, again and again.

It publishes nothing; it is what the node shares its machine with in `dposer benchmark load`.
"""

import argparse
from pathlib import Path

import cv2

from dposer_core.errors import MediaError
from dposer_ros.demo.detector import HolisticDetector
from dposer_ros.demo.lifetime import Stop, run_main

_PICTURES = 60  # kept in memory: reading them is not the detector's work


def main() -> None:
    """Print `frame N` after each picture, until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('video', type=Path, help='with a person in it')
    path = parser.parse_args().video
    video = cv2.VideoCapture(str(path))
    pictures = [picture for _ in range(_PICTURES) for ok, picture in [video.read()] if ok]
    if not pictures:
        raise MediaError(f'{path} cannot be read as a video')
    stop, detector, count = Stop(), HolisticDetector(), 0
    while not stop:
        detector.detect(pictures[count % len(pictures)])
        count += 1
        print(f'frame {count}')


if __name__ == '__main__':
    run_main(main)
