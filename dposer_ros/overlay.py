"""The fitted people drawn over the picture that they were seen in, coloured by their sources."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from dposer_core import render, skeleton
from dposer_core.state import Source
from dposer_ros.viewer.moment import Person

Project = Callable[[np.ndarray], np.ndarray]
"""(N, 3) metres in the frame of the states -> (N, 2) pixels of the picture, NaN if not in it."""

BONES = np.array(
    [
        (skeleton.PARENTS[joint], joint)
        for joint in range(1, skeleton.NUM_JOINTS)
        if not skeleton.JAW_JOINT <= joint < skeleton.EYE_JOINTS.stop
    ]
)
"""(N, 2) joints that a line connects; jaw and eyes have none."""

_OUTLINE = (20, 20, 20)  # BGR
_SHIFT = 3  # bits of a pixel's fraction, as OpenCV takes them
_FURTHEST = 8000.0  # px; beyond this OpenCV's fixed point overflows


def draw_people(image: np.ndarray, people: Sequence[Person], project: Project) -> np.ndarray:
    """`image` (H, W, 3) BGR with everybody's skeleton, name and status, and what colours mean."""
    canvas = image.copy()
    thick = max(2, round(max(image.shape[:2]) / 320))
    for person in people:
        pixels = project(person.joints)
        _draw_bones(canvas, pixels, person.source, thick)
        _draw_name(canvas, person, pixels)
    if people:
        render.draw_legend(canvas, (8, 8))
    return canvas


def _draw_bones(canvas: np.ndarray, pixels: np.ndarray, source: np.ndarray, thick: int) -> None:
    fixed = np.rint(np.clip(pixels, -_FURTHEST, _FURTHEST) * 2**_SHIFT)
    visible = np.isfinite(fixed).all(axis=1)
    bones = [(a, b) for a, b in BONES if visible[a] and visible[b]]
    for width, color in ((2, _OUTLINE), (0, None)):  # the dark rim first, below every line
        for a, b in bones:
            is_finger = b >= skeleton.LEFT_HAND_JOINTS.start
            line = (max(1, thick // 3) if is_finger else thick) + width
            shown = color or render.SOURCE_COLORS[Source(int(source[b]))]
            ends = (tuple(map(int, fixed[joint])) for joint in (a, b))
            cv2.line(canvas, *ends, shown, line, cv2.LINE_AA, _SHIFT)


def _draw_name(canvas: np.ndarray, person: Person, pixels: np.ndarray) -> None:
    head = pixels[skeleton.JOINT_INDEX['head']]
    height, width = canvas.shape[:2]
    if np.isfinite(head).all() and 0 <= head[0] < width and 0 <= head[1] < height:
        place = (int(head[0]) + 12, max(int(head[1]) - 24, 14))
        render.draw_text(canvas, f'{person.body_id[:12]} {person.status.name}', place, 0.45)
