"""The node `dposer_viz`: pictures of what `dposer_wholebody` says; its end costs the fit nothing.

Subscribes to the states, and to images only while somebody looks at the result: `_look` opens and
closes the inputs. States and image of one stamp come together in a synchroniser; what is drawn,
a worker thread draws, the newest first.

    python -m dposer_ros.viz --ros-args -r image:=/camera/image_raw -r camera_info:=/camera/...
"""

import array
import time
from dataclasses import dataclass
from typing import Any, NoReturn

import cv2
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from dposer_core import render
from dposer_core.body_model import Body, load_body
from dposer_core.camera import PinholeCamera, project_raw
from dposer_core.config import param
from dposer_core.errors import DPoserError, ObservationError
from dposer_ros.compat import CvBridge
from dposer_ros.conversions import Cameras, cameras_from_msg, ns_from_stamp
from dposer_ros.latest import LatestWorker
from dposer_ros.msg import SmplxStateArray
from dposer_ros.overlay import draw_people
from dposer_ros.parameters import declare
from dposer_ros.process import run_until_signal
from dposer_ros.refusals import Refusals, Refused, guarded
from dposer_ros.synchroniser import Instant, Synchroniser
from dposer_ros.tf_frames import TfFrames
from dposer_ros.viewer.moment import Moment, Person, moment_from_msg

STATES = '/human/smplx_states'
OVERLAY, OVERLAY_COMPRESSED = '/human/overlay', '/human/overlay/compressed'
VERTICES, FACES = '/human/mesh_vertices', '/human/mesh_faces'
TRANSPORTS = ('raw', 'compressed')

_LOOK_PERIOD = 0.2  # s, of looking whether anybody listens
_SLOP = 0.002  # s; states carry the stamp of their image
_MAX_WAIT = 1.0  # s, for the states of an image
_STOP_TIMEOUT = 0.5  # s
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_IMAGE_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(('x', 'y', 'z', 'rgb'))
]


@dataclass(frozen=True)
class VizConfig:
    """All parameters of the node `dposer_viz`."""

    model_path: str = param('', 'SMPL-X .npz file of the fit; empty: the open body')
    image_transport: str = param(
        'raw', 'raw: image; compressed: image/compressed', choices=TRANSPORTS
    )
    rectified: bool = param(False, 'the image is rectified already: no lens distortion is left')
    overlay_rate: float = param(
        15.0, 'overlay pictures per second at most', unit='Hz', low=0.1, high=120.0
    )
    mesh_rate: float = param(10.0, 'meshes per second at most', unit='Hz', low=0.1, high=120.0)
    jpeg_quality: int = param(80, 'of the compressed overlay', low=1, high=100)


class VizNode(Node):
    """See the module; topics and parameters are in docs/VIEW.md.

    Args:
        kwargs: for `rclpy.node.Node`.
    """

    autostart = True

    def __init__(self, **kwargs) -> None:
        super().__init__('dposer_viz', **kwargs)
        self.refusals = Refusals(self.get_logger())
        self._config, self._error = declare(self, VizConfig())
        self._bridge = CvBridge()
        self._body: Body | None = None
        self._camera: CameraInfo | None = None
        self._inputs: dict[str, Subscription] = {}
        self._outputs: dict[str, Publisher] = {}
        self._frames: TfFrames | None = None
        self._sync = self._new_sync()
        self._worker: LatestWorker[tuple[Moment, Any]] | None = None
        self._drawn = self._meshed = -np.inf
        self._are_faces_out = False

    @property
    def inputs(self) -> set[str]:
        """What is listened to now: states, camera_info, image."""
        return set(self._inputs)

    def start(self) -> bool:
        """Load the body and open the topics; False, with the reason logged, if it fails."""
        try:
            if self._error is not None:
                raise self._error
            self._body = load_body(self._config.model_path)
            self._frames = TfFrames(self, is_moving=True)
            self._open()
        except DPoserError as error:
            self.get_logger().error(str(error))
            return False
        return True

    def close(self) -> None:
        """Stop listening and drawing."""
        self._listen(set())
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop(_STOP_TIMEOUT)

    # --- who looks, and what that takes -------------------------------------------------------

    def _open(self) -> None:
        kinds: dict[str, tuple[type, QoSProfile]] = {
            OVERLAY: (Image, QoSProfile(depth=1)),
            OVERLAY_COMPRESSED: (CompressedImage, QoSProfile(depth=1)),
            VERTICES: (PointCloud2, QoSProfile(depth=1)),
        }
        try:
            from shape_msgs.msg import Mesh
        except ImportError:
            self.get_logger().warning(f'no {FACES}: shape_msgs is not installed')
        else:
            kinds[FACES] = (Mesh, _LATCHED)
        self._outputs = {
            topic: self.create_publisher(kind, topic, qos) for topic, (kind, qos) in kinds.items()
        }
        self._worker = LatestWorker(self._draw, lambda: None, self._on_worker_error)
        self._worker.start()
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self.create_timer(_LOOK_PERIOD, self._look, clock=steady)

    def _is_wanted(self, *topics: str) -> bool:
        publishers = (self._outputs.get(topic) for topic in topics)
        return any(p is not None and p.get_subscription_count() for p in publishers)

    @guarded
    def _look(self) -> None:
        """Listen to what is needed for those who look, and to nothing else."""
        wanted = set()
        if self._is_wanted(OVERLAY, OVERLAY_COMPRESSED):
            wanted |= {'states', 'camera_info', 'image'}
        if self._is_wanted(VERTICES):
            wanted.add('states')
        if wanted != self.inputs:
            self._listen(wanted)
        if self._is_wanted(FACES) and not self._are_faces_out:
            self._are_faces_out = True
            self._outputs[FACES].publish(faces_msg(self._body))

    def _listen(self, wanted: set[str]) -> None:
        for name in self.inputs - wanted:
            self.destroy_subscription(self._inputs.pop(name))
        if 'image' not in wanted:
            self._sync = self._new_sync()
        for name in wanted - self.inputs:
            self._inputs[name] = self._subscribed(name)

    def _subscribed(self, name: str) -> Subscription:
        if name == 'states':
            return self.create_subscription(SmplxStateArray, STATES, self._on_states, 5)
        if name == 'camera_info':
            return self.create_subscription(CameraInfo, name, self._on_camera_info, 1)
        kind, topic = Image, 'image'
        if self._config.image_transport == 'compressed':
            kind, topic = CompressedImage, 'image/compressed'
        return self.create_subscription(kind, topic, self._on_image, _IMAGE_QOS)

    @staticmethod
    def _new_sync() -> 'Synchroniser[Any]':
        return Synchroniser(('states', 'image'), _SLOP, _MAX_WAIT)

    # --- messages: executor thread ------------------------------------------------------------

    @guarded
    def _on_states(self, msg: SmplxStateArray) -> None:
        try:
            moment = moment_from_msg(msg)
        except DPoserError as error:
            raise Refused('states', str(error)) from error
        now = time.monotonic()
        if self._is_wanted(VERTICES) and _is_due(now, self._meshed, self._config.mesh_rate):
            self._meshed = now
            self._worker.post(lambda: self._publish_mesh(moment, msg.header))
        if 'image' in self._inputs:
            self._hand_over(self._sync.add('states', moment.stamp_ns, moment, now))

    @guarded
    def _on_image(self, msg: Image | CompressedImage) -> None:
        stamp_ns = ns_from_stamp(msg.header.stamp)
        self._hand_over(self._sync.add('image', stamp_ns, msg, time.monotonic()))

    @guarded
    def _on_camera_info(self, msg: CameraInfo) -> None:
        self._camera = msg

    def _hand_over(self, instants: list[Instant[Any]]) -> None:
        """An image without states is drawn only where there are none at all."""
        for instant in instants:
            stamp, image = instant.items.get('image', (0, None))
            if image is None:
                continue
            if 'states' in instant.items:
                moment = instant.items['states'][1]
            elif 'states' in self._sync.silent(time.monotonic()):
                moment = Moment(stamp, '', ())
            else:
                continue
            now = time.monotonic()
            if _is_due(now, self._drawn, self._config.overlay_rate):
                self._drawn = now
                self._worker.put((moment, image))

    # --- pictures: worker thread --------------------------------------------------------------

    def _draw(self, item: tuple[Moment, Any]) -> None:
        moment, msg = item
        image = self._decoded(msg)
        if moment.people:
            image = draw_people(image, moment.people, self._projection(moment, image))
        if self._is_wanted(OVERLAY):
            shown = self._bridge.cv2_to_imgmsg(image, 'bgr8')
            shown.header = msg.header
            self._outputs[OVERLAY].publish(shown)
        if self._is_wanted(OVERLAY_COMPRESSED):
            quality = [cv2.IMWRITE_JPEG_QUALITY, self._config.jpeg_quality]
            small = CompressedImage(header=msg.header, format='bgr8; jpeg compressed bgr8')
            small.data = array.array('B', cv2.imencode('.jpg', image, quality)[1].tobytes())
            self._outputs[OVERLAY_COMPRESSED].publish(small)

    def _decoded(self, msg: Image | CompressedImage) -> np.ndarray:
        if isinstance(msg, Image):
            try:
                return self._bridge.imgmsg_to_cv2(msg, 'bgr8')
            except ObservationError as error:
                raise Refused('image', str(error)) from error
        image = cv2.imdecode(np.frombuffer(msg.data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise Refused('image', f"{len(msg.data)} bytes of '{msg.format}' are no picture")
        return image

    def _projection(self, moment: Moment, image: np.ndarray):
        """How points of the states come into this picture; raises Refused if nobody knows."""
        if self._camera is None:
            raise Refused('no_camera_info', 'no camera_info yet: remap it to that of the image')
        try:
            cameras = cameras_from_msg(self._camera)
        except ObservationError as error:
            raise Refused('camera_info', str(error)) from error
        camera = (cameras.rectified if self._config.rectified else cameras.raw)[0]
        rotation, place = self._in_camera(moment, cameras)
        model, coefficients = self._camera.distortion_model, np.asarray(self._camera.d)
        if self._config.rectified:
            coefficients = np.zeros(0)
        scale = _scale(camera, image)

        def project(points: np.ndarray) -> np.ndarray:
            seen = points @ rotation.T + place
            return (project_raw(seen, camera, model, coefficients) + 0.5) * scale - 0.5

        return project

    def _in_camera(self, moment: Moment, cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
        """T_camera_states; raises Refused if nothing connects the two frames."""
        if not cameras.frame_id or moment.frame_id == cameras.frame_id:
            return np.eye(3), np.zeros(3)
        found = self._frames.lookup(cameras.frame_id, moment.frame_id, moment.stamp_ns * 1e-9)
        if found is None:
            raise Refused(
                'no_extrinsics',
                f"/tf does not connect '{moment.frame_id}', the frame of the states, and "
                f"'{cameras.frame_id}', that of camera_info",
            )
        return found

    def _publish_mesh(self, moment: Moment, header: Header) -> None:
        sha256 = self._body.tables.sha256[:8]
        others = {p.model for p in moment.people if p.model.split('/')[-1] != sha256}
        if others:
            raise Refused(
                'model',
                f'no mesh: fitted with {", ".join(sorted(others))[:100]}, loaded is {sha256}; '
                'set model_path to the same file',
            )
        self._outputs[VERTICES].publish(vertices_msg(self._body, moment.people, header))

    def _on_worker_error(self, error: Exception) -> None:
        self.refusals.add_error('output_failed', error)


def vertices_msg(body: Body, people: tuple[Person, ...], header: Header) -> PointCloud2:
    """A row of points per person, in the order of the states, coloured by their sources."""
    rows = np.zeros((len(people), len(body.v_template), 4), np.float32)
    vertex_joints = body.weights.argmax(axis=1)
    for row, person in zip(rows, people, strict=True):
        row[:, :3] = body.vertices(
            person.pose_rotvec, person.betas, person.expression, person.transl
        )[0]
        blue, green, red = render.source_colors(person.source, vertex_joints).T.astype(np.uint32)
        row[:, 3] = (red << 16 | green << 8 | blue).view(np.float32)  # as RViz reads it
    msg = PointCloud2(header=header, height=len(people), width=rows.shape[1], fields=_FIELDS)
    msg.point_step, msg.row_step = 16, 16 * rows.shape[1]
    msg.is_dense = True
    msg.data = array.array('B', rows.tobytes())
    return msg


def faces_msg(body: Body) -> Any:
    """shape_msgs/Mesh: the faces, which never change, and the body at rest."""
    from geometry_msgs.msg import Point
    from shape_msgs.msg import Mesh, MeshTriangle

    return Mesh(
        triangles=[MeshTriangle(vertex_indices=face) for face in body.faces.astype(np.uint32)],
        vertices=[Point(x=x, y=y, z=z) for x, y, z in body.v_template.tolist()],
    )


def _is_due(now: float, last: float, rate: float) -> bool:
    """A frame that comes a little early is taken: the next one would come a whole period late."""
    return now - last >= 0.8 / rate


def _scale(camera: PinholeCamera, image: np.ndarray) -> np.ndarray:
    """(2,) size of the picture over that which camera_info means."""
    height, width = image.shape[:2]
    return np.array([width / (camera.width or width), height / (camera.height or height)])


def main(args: list[str] | None = None) -> NoReturn:
    """Run the node until SIGINT or SIGTERM."""
    run_until_signal(VizNode, args)


if __name__ == '__main__':
    main()
