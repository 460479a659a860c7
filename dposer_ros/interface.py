"""The reference docs/INTERFACE.md, made from the node, its parameters and the interface files.

`python -m dposer_ros.interface docs/INTERFACE.md` writes it.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dposer_core import skeleton
from dposer_core.errors import DPoserError
from dposer_core.files import write_text
from dposer_ros.conversions import ModelInfo
from dposer_ros.environment import CHECKOUT
from dposer_ros.events import KINDS
from dposer_ros.frames import BODY_LINKS
from dposer_ros.live_model import LiveModel
from dposer_ros.node import WholeBodyNode
from dposer_ros.parameters import parameter_table

_OF_RCLPY = ('/parameter_events', '/rosout', '~/transition')
BODY = 'ID'  # stands for the id of a body, which the page writes as <id>

TOPICS = {
    '/keypoints': 'in: keypoints in any type that an adapter reads (`input.type`)',
    '/camera_info': 'in: the camera of 2D keypoints; the newest counts',
    '/human/smplx_state': 'state of the primary person',
    '/human/smplx_states': 'states of everybody; also when nobody is there',
    '/human/hands': 'both hands of everybody, completed where hidden',
    '/human/joint_states': 'angles of the primary person for `/human/urdf`',
    '/human/urdf': 'skeleton of the primary person, published when the lengths change',
    '/human/hand_poses': 'OpenXR joints of both hands of the primary person '
    '(`outputs.hand_poses`)',
    '/human/keypoints_completed': '133 points of everybody in metres; confidence 0 where the '
    'prior completed them (`outputs.keypoints_completed`)',
    '/human/capsules': 'limbs of everybody as capsules (`outputs.capsules`)',
    '/human/markers': 'everybody for RViz and Foxglove, at most 15 Hz, coloured by source',
    '/humans/bodies/tracked': 'REP-155: ids of those tracked, at every change and each second',
    '/humans/bodies/<id>/roi': 'REP-155: box in the picture; needs a camera',
    '/humans/bodies/<id>/skeleton2d': 'REP-155: keypoints in the picture, c = 0 where not seen',
    '/humans/bodies/<id>/joint_states': "angles for the body's `urdf`; names end with the id",
    '/humans/bodies/<id>/urdf': 'skeleton of the body with its own lengths',
    '/humans/bodies/<id>/position': 'middle of the hips',
    '/humans/bodies/<id>/velocity': 'twist of the pelvis',
    '/tf': 'frames of everybody (`tf.mode`)',
    '/diagnostics': '1 Hz, and at once on failures: Input, Fit, Output, Model/GPU, Tracks, Clock',
    '~/events': 'what happened to bodies and to the node',
    '~/heartbeat': '10 Hz, while the node lives',
    '~/timing': 'stage times of every frame',
}

SERVICES = {
    '~/reset': 'forget everybody',
    '~/reset_body': 'forget one body',
    '~/set_enabled': 'ignore keypoints, or take them again; people are lost by silence',
    '~/set_primary': 'whom the topics of one person follow: a body, or a policy',
    '~/save_shape': 'write the betas of a body to a file below `storage.folder`',
    '~/load_shape': 'give a body the betas of a file and freeze them',
    '~/snapshot': 'write the last seconds of inputs and states as an MCAP bag',
    '~/get_status': 'state, people, rates, latencies, counters',
    '~/calibrate_shape': 'action: estimate the betas of a body anew, then freeze them',
    '~/warmup': 'action: run fits on made-up input while inactive',
}

INTRODUCTION = """\
# Interface

Written by `python -m dposer_ros.interface docs/INTERFACE.md` from the running node, its
parameters and the files in `msg/`, `srv/` and `action/`; a test compares. `~` is the node,
`/dposer_wholebody` by default. Every topic can be remapped, and its QoS overridden with
`qos_overrides`. Units are SI; quaternions are x, y, z, w; stamps are those of the image.
"""


class _Nobody:
    """A fitter for a node that is only looked at."""

    def reset(self) -> None:
        """There is nobody to forget."""


@contextmanager
def _node() -> Iterator[WholeBodyNode]:
    """The node, active, with every topic that it can have."""
    options = ('hand_poses', 'keypoints_completed', 'capsules')
    overrides = [Parameter(f'outputs.{option}', value=True) for option in options]
    rest = np.zeros((skeleton.NUM_JOINTS, 3))
    context = Context()
    rclpy.init(context=context)
    node = WholeBodyNode(
        lambda config: LiveModel(_Nobody(), ModelInfo('none'), lambda betas: rest),
        context=context,
        parameter_overrides=overrides,
    )
    try:
        if not node.start():
            raise DPoserError(f'the node does not start: {node.error}')
        yield node
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown(context=context)


def interface_page() -> str:
    """The text of docs/INTERFACE.md."""
    with _node() as node:
        node.outputs.add_body(BODY)
        topics, services = _topics(node), _services(node)
    events = ', '.join(KINDS[kind] for kind in sorted(KINDS))
    links = ', '.join(f'`{link.name}_<id>`' for link in BODY_LINKS)
    parts = [
        INTRODUCTION,
        '## Topics\n',
        topics,
        '## Services and actions\n',
        services,
        '## Frames\n',
        'With `tf.mode` at `rep155` every body has `body_<id>` (middle of the hips, x to the'
        f' front, z up, child of the frame of the input) and below it {links}; x to the front,'
        ' z up for a standing person whose arms hang. `smplx` adds the joints of SMPL-X but the'
        ' fingers, `smplx_hands` all of them. With a robot_state_publisher on a `urdf` topic use'
        ' `root`.\n',
        f'## Events\n\n{events}: see `TrackEvent` below.\n',
        '## Parameters\n',
        '(live): may be changed while the node runs.\n',
        parameter_table(),
        *(_definitions(folder) for folder in ('msg', 'srv', 'action')),
    ]
    return '\n'.join(parts)


def _topics(node: WholeBodyNode) -> str:
    lines = ['| topic | type | QoS | content |', '|---|---|---|---|']
    found = {}
    for endpoint in (*node.subscriptions, *node.publishers):
        name = _shown(getattr(endpoint, 'topic_name', None) or endpoint.topic, node)
        found[name] = (_type(endpoint.msg_type), _qos(endpoint.qos_profile))
    for name, content in TOPICS.items():
        if name not in found:
            raise DPoserError(f'{name} is described in dposer_ros/interface.py but does not exist')
        kind, qos = found.pop(name)
        lines.append(f'| `{name}` | `{kind}` | {qos} | {content} |')
    unknown = [n for n in found if not n.startswith(_OF_RCLPY)]
    if unknown:
        raise DPoserError(f'describe {unknown} in dposer_ros/interface.py')
    return '\n'.join(lines) + '\n'


def _services(node: WholeBodyNode) -> str:
    lines = ['| name | type | what it does |', '|---|---|---|']
    found = {_shown(s.srv_name, node): _type(s.srv_type) for s in node.services}
    found |= node.actions
    for name, content in SERVICES.items():
        if name not in found:
            raise DPoserError(f'{name} is described in dposer_ros/interface.py but does not exist')
        lines.append(f'| `{name}` | `{found[name]}` | {content} |')
    return '\n'.join(lines) + '\n'


def _shown(name: str, node: WholeBodyNode) -> str:
    name = name.replace(f'/{node.get_name()}/', '~/', 1)
    return name.replace(f'/{BODY}/', '/<id>/')


def _type(kind: Any) -> str:
    package, folder = kind.__module__.split('.')[:2]
    return f'{package}/{folder}/{kind.__name__}'


def _qos(qos: QoSProfile) -> str:
    words = ['reliable' if qos.reliability == ReliabilityPolicy.RELIABLE else 'best effort']
    if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        words.append('latched')
    words.append(f'depth {qos.depth}')
    return ', '.join(words)


def _definitions(folder: str) -> str:
    parts = [f'## Definitions: {folder}/\n']
    for path in sorted((CHECKOUT / folder).glob(f'*.{folder}')):
        parts.append(f'### {path.stem}\n\n```\n{path.read_text().rstrip()}\n```\n')
    return '\n'.join(parts)


def main() -> None:
    """Write the page named on the command line."""
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    write_text(Path(sys.argv[1]), interface_page())


if __name__ == '__main__':
    main()
