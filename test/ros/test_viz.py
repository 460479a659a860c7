"""`dposer_viz` over real DDS: overlay and mesh, and nothing while nobody looks."""

import dataclasses
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from dposer_ros.msg import FitStats, SmplxStateArray
from node_probe import LATCHED, camera_info, ros_context, spinning
from node_probe import wait_for as wait_at_most
from null_fitter import result
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from dposer_core import skeleton
from dposer_core.body_model import load_body
from dposer_core.camera import PinholeCamera
from dposer_core.config import parameters
from dposer_core.errors import ModelFileError
from dposer_core.render import SOURCE_COLORS
from dposer_core.state import Source
from dposer_ros.compat import CvBridge
from dposer_ros.conversions import ModelInfo, header_at, state_msg
from dposer_ros.overlay import draw_people
from dposer_ros.viewer.moment import Moment, moment_from_msg
from dposer_ros.viz import (
    FACES,
    OVERLAY,
    OVERLAY_COMPRESSED,
    VERTICES,
    VizConfig,
    VizNode,
    vertices_msg,
)

pytestmark = pytest.mark.ros

SIZE = (320, 240)
CAMERA = PinholeCamera(150.0, 150.0, SIZE[0] / 2, SIZE[1] / 2, *SIZE)
HIDDEN = np.full(skeleton.NUM_JOINTS, Source.OBSERVED, np.uint8)
HIDDEN[[18, 20]] = HIDDEN[skeleton.LEFT_HAND_JOINTS] = Source.COMPLETED  # elbow, wrist, hand


def wait_for(condition) -> None:
    """Long enough for a machine that is busy with other tests."""
    wait_at_most(condition, 30.0)


@pytest.fixture(scope='module')
def body():
    try:
        return load_body('')
    except ModelFileError as error:
        pytest.skip(str(error))


def states(body, stamp_ns=10**9, frame='camera', model='') -> SmplxStateArray:
    """Somebody at rest, 3 m before the camera, whose left forearm and hand are completed."""
    fitted = result(stamp_ns, source=HIDDEN)
    state = fitted.state
    joints = body.joints(state.pose_rotvec, state.betas, state.expression, state.transl)[0]
    fitted = dataclasses.replace(fitted, state=dataclasses.replace(state, joints=joints))
    header = header_at(stamp_ns, frame)
    info = ModelInfo(model or f'{body.tables.name}/{body.tables.sha256[:8]}')
    return SmplxStateArray(header=header, states=[state_msg(fitted, header, info, FitStats())])


def grey_image(stamp_ns=10**9) -> Image:
    msg = CvBridge().cv2_to_imgmsg(np.full((SIZE[1], SIZE[0], 3), 90, np.uint8), 'bgr8')
    msg.header = header_at(stamp_ns, 'camera')
    return msg


def color_at(image: np.ndarray, person, joint: str) -> Source:
    """Whose colour is nearest in the middle of the bone above the joint."""
    index = skeleton.JOINT_INDEX[joint]
    ends = CAMERA.project(person.joints[[index, skeleton.PARENTS[index]]])
    x, y = np.rint(ends.mean(axis=0)).astype(int)
    distances = {
        source: np.abs(image[y, x].astype(float) - color).sum()
        for source, color in SOURCE_COLORS.items()
    }
    return min(distances, key=distances.get)


def test_bones_have_the_colour_of_their_source(body):
    (person,) = moment_from_msg(states(body)).people
    image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    drawn = draw_people(image, [person], CAMERA.project)
    assert color_at(drawn, person, 'left_wrist') == Source.COMPLETED
    for joint in ('right_wrist', 'left_knee', 'right_ankle', 'spine2'):
        assert color_at(drawn, person, joint) == Source.OBSERVED
    assert (image == 90).all()  # the picture itself is left as it is


def test_nobody_leaves_the_picture_as_it_is():
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    np.testing.assert_array_equal(draw_people(image, [], CAMERA.project), image)


def test_who_is_behind_the_camera_or_far_outside_is_not_drawn(body):
    (person,) = moment_from_msg(states(body)).people
    image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    for shift in ((0.0, 0.0, -6.0), (1e4 - 5.0, 0.0, 0.0)):
        moved = dataclasses.replace(person, joints=person.joints + shift)
        drawn = draw_people(image, [moved], CAMERA.project)
        assert (drawn[100:] == 90).all()  # above is the legend


def test_the_cloud_holds_every_vertex_with_its_colour(body):
    people = moment_from_msg(states(body)).people
    cloud = vertices_msg(body, people * 2, header_at(1, 'camera'))
    num = len(body.v_template)
    assert (cloud.height, cloud.width, len(cloud.data)) == (2, num, 2 * num * 16)
    values = np.frombuffer(cloud.data, np.float32).reshape(2, num, 4)
    expected = body.vertices(people[0].pose_rotvec, None, None, people[0].transl)[0]
    np.testing.assert_allclose(values[1, :, :3], expected, atol=1e-5)
    colors = np.ascontiguousarray(values[0, :, 3]).view(np.uint8).reshape(num, 4)[:, :3]
    orange = (colors == SOURCE_COLORS[Source.COMPLETED]).all(axis=1)  # BGR in memory
    moved_by = body.weights.argmax(axis=1)
    np.testing.assert_array_equal(orange, HIDDEN[moved_by] == Source.COMPLETED)


# --- the node ------------------------------------------------------------------------------------


class Onlooker(rclpy.node.Node):
    """Publishes what the node takes, and looks at what it makes when asked to."""

    def __init__(self, context) -> None:
        super().__init__('onlooker', context=context)
        self.states = self.create_publisher(SmplxStateArray, '/human/smplx_states', 1)
        self.image = self.create_publisher(Image, 'image', 1)
        self.compressed = self.create_publisher(CompressedImage, 'image/compressed', 1)
        self.camera = self.create_publisher(CameraInfo, 'camera_info', 1)
        self.got: list = []

    def look(self, kind, topic, qos=1):
        return self.create_subscription(kind, topic, self.got.append, qos)

    def show(self, body, stamp_ns: int, frame: str = 'camera') -> None:
        """An image and its states; best effort may lose the first ones."""
        self.image.publish(grey_image(stamp_ns))
        self.states.publish(states(body, stamp_ns, frame))

    def calibrate(self, node, frame_id='camera') -> None:
        info = camera_info(150.0, *SIZE)
        info.header.frame_id = frame_id
        wait_for(lambda: self.camera.publish(info) or node._camera is not None)


@contextmanager
def viz(**parameters):
    with ros_context() as context:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = VizNode(context=context, parameter_overrides=overrides)
        onlooker = Onlooker(context)
        try:
            assert node.start()
            with spinning(node, onlooker):
                yield node, onlooker
        finally:
            node.close()
            node.destroy_node()
            onlooker.destroy_node()


def test_an_overlay_is_made_while_somebody_looks_and_only_then(body):
    (person,) = moment_from_msg(states(body)).people
    with viz() as (node, onlooker):
        wait_for(lambda: onlooker.count_publishers(OVERLAY) == 1)
        assert node.inputs == set()
        subscription = onlooker.look(Image, OVERLAY)
        wait_for(lambda: node.inputs == {'states', 'image', 'camera_info'})
        onlooker.calibrate(node)
        wait_for(lambda: onlooker.image.get_subscription_count() == 1)
        wait_for(lambda: onlooker.states.get_subscription_count() == 1)
        stamps = iter(range(3 * 10**9, 10**11, 10**7))
        wait_for(lambda: onlooker.show(body, next(stamps)) or onlooker.got)
        msg = onlooker.got[0]
        assert msg.header.stamp.sec >= 3 and msg.header.frame_id == 'camera'
        image = CvBridge().imgmsg_to_cv2(msg, 'bgr8')
        assert color_at(image, person, 'left_wrist') == Source.COMPLETED
        assert color_at(image, person, 'left_knee') == Source.OBSERVED
        # Where it spins: a wait set that loses a subscription meanwhile raises.
        onlooker.executor.create_task(onlooker.destroy_subscription, subscription)
        wait_for(lambda: node.inputs == set())
        assert node.refusals.total == 0


def test_images_go_through_while_there_are_no_states(body):
    with viz() as (node, onlooker):
        onlooker.look(Image, OVERLAY)
        wait_for(lambda: 'image' in node.inputs and onlooker.image.get_subscription_count())
        stamps = iter(range(1, 1000))
        wait_for(
            lambda: (
                onlooker.image.publish(grey_image(10**9 + next(stamps) * 10**7)) or onlooker.got
            )
        )
        assert (np.frombuffer(onlooker.got[0].data, np.uint8) == 90).all()


def test_compressed_images_in_and_out(body):
    (person,) = moment_from_msg(states(body)).people
    with viz(image_transport='compressed') as (node, onlooker):
        onlooker.look(CompressedImage, OVERLAY_COMPRESSED)
        wait_for(lambda: 'image' in node.inputs)
        onlooker.calibrate(node)
        wait_for(lambda: onlooker.compressed.get_subscription_count() == 1)
        wait_for(lambda: onlooker.states.get_subscription_count() == 1)
        grey = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        jpeg = cv2.imencode('.jpg', grey)[1].tobytes()

        def show(stamp_ns: int, data: bytes) -> None:
            msg = CompressedImage(header=header_at(stamp_ns, 'camera'), format='jpeg', data=data)
            onlooker.compressed.publish(msg)
            onlooker.states.publish(states(body, stamp_ns))

        stamps = iter(range(10**9, 10**11, 10**7))
        wait_for(lambda: show(next(stamps), b'no picture') or node.refusals.counts['image'] > 0)
        wait_for(lambda: show(next(stamps), jpeg) or onlooker.got)
        image = cv2.imdecode(np.frombuffer(onlooker.got[0].data, np.uint8), cv2.IMREAD_COLOR)
        assert color_at(image, person, 'left_wrist') == Source.COMPLETED


@pytest.mark.parametrize(
    ('frame', 'calibrated', 'cause'),
    [('map', True, 'no_extrinsics'), ('camera', False, 'no_camera_info')],
)
def test_why_nothing_can_be_drawn_is_told(body, frame, calibrated, cause):
    with viz() as (node, onlooker):
        onlooker.look(Image, OVERLAY)
        wait_for(lambda: 'image' in node.inputs and onlooker.image.get_subscription_count())
        wait_for(lambda: onlooker.states.get_subscription_count() == 1)
        if calibrated:
            onlooker.calibrate(node)
        stamps = iter(range(10**9, 10**11, 10**7))
        wait_for(
            lambda: onlooker.show(body, next(stamps), frame) or node.refusals.counts[cause] > 0
        )
        assert onlooker.got == []


@pytest.mark.parametrize('rectified', [False, True])
def test_people_are_drawn_where_the_lens_and_the_size_of_the_picture_put_them(rectified):
    lens = np.array([-0.2, 0.05, 0.0, 0.0, 0.0])
    points = np.array([[0.5, -0.4, 2.0], [-0.7, 0.3, 2.0]])
    info = camera_info(150.0, *SIZE)
    info.header.frame_id, info.d = 'camera', lens.tolist()
    moment = Moment(0, 'camera', ())
    half = np.zeros((SIZE[1] // 2, SIZE[0] // 2, 3), np.uint8)
    with viz(rectified=rectified) as (node, _):
        node._camera = info
        pixels = node._projection(moment, half)(points)
    zero, matrix = np.zeros(3), np.reshape(info.k, (3, 3))
    full = cv2.projectPoints(points, zero, zero, matrix, 0.0 * lens if rectified else lens)[0]
    # Pixel centres are at integers: a picture of half the size has its first one between two.
    np.testing.assert_allclose(pixels, (full[:, 0] + 0.5) / 2 - 0.5, atol=1e-6)


def test_the_mesh_comes_to_those_who_look_with_faces_for_late_joiners(body):
    with viz() as (node, onlooker):
        onlooker.look(PointCloud2, VERTICES)
        wait_for(lambda: node.inputs == {'states'})
        wait_for(lambda: onlooker.states.get_subscription_count() == 1)
        onlooker.states.publish(states(body, model='other/12345678'))
        wait_for(lambda: node.refusals.counts['model'] == 1)
        stamps = iter(range(2, 1000))
        wait_for(
            lambda: onlooker.states.publish(states(body, next(stamps) * 10**8)) or onlooker.got
        )
        (cloud, *_) = onlooker.got
        assert (cloud.height, cloud.width) == (1, len(body.v_template))
        from shape_msgs.msg import Mesh

        for _ in range(2):  # the second one comes after they were published
            onlooker.got.clear()
            onlooker.look(Mesh, FACES, LATCHED)
            wait_for(lambda: any(isinstance(msg, Mesh) for msg in onlooker.got))
            mesh = next(msg for msg in onlooker.got if isinstance(msg, Mesh))
            assert len(mesh.triangles) == len(body.faces)
            assert mesh.triangles[9].vertex_indices.tolist() == body.faces[9].tolist()


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({'model_path': '/nowhere/x.npz'}, '/nowhere/x.npz'),
        ({'image_transport': 'theora'}, 'choose one of raw, compressed'),
        ({'overlay_rate': 0.0}, 'overlay_rate'),
        ({'overlay_rat': 1.0}, "did you mean 'overlay_rate'"),
    ],
)
def test_a_bad_parameter_is_told_and_nothing_starts(parameters, message, capfd):
    with ros_context() as context:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = VizNode(context=context, parameter_overrides=overrides)
        try:
            assert not node.start()
        finally:
            node.close()
            node.destroy_node()
    assert message in ''.join(capfd.readouterr())


def test_the_page_names_every_parameter_with_its_default():
    page = (Path(__file__).resolve().parents[2] / 'docs' / 'VIEW.md').read_text()
    rows = [line.split('|') for line in page.splitlines() if line.startswith('| `')]
    told = {name.strip(' `'): default.strip(' `') for _, name, default, *_ in rows}
    for name, default, metadata in parameters(VizConfig()):
        shown = str(default).lower() if isinstance(default, bool) else repr(default)
        assert told[name] == shown, metadata
