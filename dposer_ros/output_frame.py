"""Published states stand in `output_frame`, wherever the camera is."""

import copy
import dataclasses
from collections.abc import Callable

from rclpy.node import Node
from std_msgs.msg import Header

from dposer_core.state import FitResult
from dposer_ros.tf_frames import TfFrames, Transform


@dataclasses.dataclass(frozen=True)
class Placement:
    """How results come into the frame that is published."""

    header: Header
    transform: Transform | None = None
    """T_header_input; None: the frame of the input itself."""

    def of(self, result: FitResult) -> FitResult:
        """The result in `header.frame_id`."""
        if self.transform is None:
            return result
        return dataclasses.replace(result, state=result.state.seen_from(*self.transform))


class OutputFrame:
    """Looks up where the input stands; never waits for it.

    Args:
        node: that listens to /tf.
        frame_id: value of `output_frame`.
        refuse: called with (cause, message) for a frame that cannot be placed.

    Raises:
        ConfigError: tf2_msgs is missing.
    """

    def __init__(self, node: Node, frame_id: str, refuse: Callable[[str, str], None]) -> None:
        self._frame_id = frame_id
        self._refuse = refuse
        self._frames = TfFrames(node, is_moving=True)

    def placement(self, header: Header) -> Placement:
        """Where the results of this input go; where nothing is known, they stay where they are."""
        stamp = header.stamp.sec + header.stamp.nanosec * 1e-9
        found = self._frames.lookup(self._frame_id, header.frame_id, stamp)
        if found is None:
            self._refuse(
                'no_transform',
                f"/tf does not connect '{header.frame_id}' and '{self._frame_id}' (output_frame) "
                'at that time: published in the frame of the input',
            )
            return Placement(header)
        moved = copy.copy(header)
        moved.frame_id = self._frame_id
        return Placement(moved, found)

    def close(self) -> None:
        """Listen no more."""
        self._frames.close()
