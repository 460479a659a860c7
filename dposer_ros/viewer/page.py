"""The page itself: a viser server with the bodies in 3D and a panel of controls and figures."""

import contextlib
import html
import io
import threading
from collections.abc import Sequence

import cv2
import numpy as np
import viser
from viser import uplot

from dposer_core import render, skeleton
from dposer_core.body_model import Body
from dposer_core.camera import PinholeCamera
from dposer_core.observation import Observation
from dposer_core.state import Source
from dposer_ros.conversions import hand_source
from dposer_ros.overlay import BONES
from dposer_ros.viewer.moment import Moment, Person
from dposer_ros.viewer.sources import MomentSource

UP_DIRECTIONS = ('auto', '+x', '+y', '+z', '-x', '-y', '-z')
RATE = 15.0  # Hz; a browser without a graphics card draws no more
SIGMAS = 1.0  # of the ellipsoids
PICTURE_WIDTH = 480  # px

LAYERS = {'Mesh': True, 'Skeleton': True, 'Uncertainty': False, 'Keypoints': True}
"""What can be switched on and off -> whether it is on."""

LATENCIES = {'fit_ms': ('fit, ms', '#2f7fd0'), 'total_ms': ('image to state, ms', '#d07a1e')}
"""Fields of a moment that are plotted -> label and colour."""

_SMALL = 'font-size:0.75em;padding:0 1em 0.4em'
_RGB = {source: color[::-1] for source, color in render.SOURCE_COLORS.items()}
_ELLIPSOID_RGB = (150, 150, 240)
_POINT_RGB = (60, 200, 90)
_UNCERTAIN = slice(0, skeleton.BODY_JOINTS.stop)  # those of fingers would cover each other
_HANDS = (skeleton.LEFT_HAND_JOINTS, skeleton.RIGHT_HAND_JOINTS)


class Page:
    """Shows moments to every browser that opens it.

    Args:
        source: of the moments.
        body: whose mesh is drawn, where the states were fitted with it.
        title: of the page.
        host: address to listen on.
        port: to listen on; the next free one if it is taken, any if 0.
        up: direction of the states' frame that is up; 'auto': told from its name.
    """

    def __init__(
        self,
        source: MomentSource,
        body: Body,
        title: str,
        host: str = '127.0.0.1',
        port: int = 8080,
        up: str = 'auto',
    ) -> None:
        self._source, self._body, self._up = source, body, up
        with contextlib.redirect_stdout(io.StringIO()):  # viser has a banner of its own
            self._server = viser.ViserServer(host=host, port=port, label=title, verbose=False)
        self._face_joints = body.weights.argmax(axis=1)[body.faces]  # (F, 3)
        self._shown: tuple = ()
        self._nodes: set[str] = set()
        self._is_placed = False
        self._stop = threading.Event()
        self._add_panel(title)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = self._server.get_host()
        host = 'localhost' if host in ('127.0.0.1', '0.0.0.0') else host
        return f'http://{host}:{self._server.get_port()}'

    def run(self) -> None:
        """Show what the source gives until `close`."""
        while not self._stop.wait(1.0 / RATE):
            self.update()

    def close(self) -> None:
        """End `run`, and the server."""
        self._stop.set()
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()

    def update(self) -> None:
        """Show the newest moment, if it or what is wanted of it has changed."""
        recent = self._source.recent()
        layers = {name for name, box in self._layers.items() if box.value}
        if not recent or (recent[-1], layers) == self._shown:
            return
        moment = recent[-1]
        self._shown = (moment, layers)
        if moment.people and not self._is_placed:
            self._place(moment)
        with self._server.atomic():
            self._draw(moment, layers)
            self._status.content = _status(moment, self._mismatch(moment))
            self._draw_latencies(recent)
            self._draw_picture(moment, 'Keypoints' in layers)

    # --- the panel ----------------------------------------------------------------------------

    def _add_panel(self, title: str) -> None:
        gui = self._server.gui
        gui.configure_theme(show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        gui.set_panel_label(title)
        self._source.add_controls(gui)
        self._picture = gui.add_image(
            np.zeros((2, 2, 3), np.uint8), label='Input', format='jpeg', visible=False
        )
        with gui.add_folder('Layers'):
            self._layers = {name: gui.add_checkbox(name, on) for name, on in LAYERS.items()}
            gui.add_html(_legend())
        with gui.add_folder('People'):
            self._status = gui.add_html('nobody yet')
        with gui.add_folder('Latency'):
            self._plots = {
                name: gui.add_uplot(
                    (np.zeros(1), np.zeros(1)),
                    (
                        uplot.Series(label='s'),
                        uplot.Series(label=label, stroke=color, width=2),
                    ),
                    scales={'x': uplot.Scale(time=False)},
                    height=120,
                    visible=False,
                )
                for name, (label, color) in LATENCIES.items()
            }

    def _draw_latencies(self, recent: Sequence[Moment]) -> None:
        """Those that were measured, over the seconds before now."""
        seconds = np.array([(moment.stamp_ns - recent[-1].stamp_ns) * 1e-9 for moment in recent])
        for name, plot in self._plots.items():
            values = np.array([getattr(moment, name) for moment in recent])
            known = np.isfinite(values)
            plot.visible = bool(known.any())
            if known.any():
                plot.data = seconds[known], values[known]

    def _draw_picture(self, moment: Moment, with_keypoints: bool) -> None:
        """The image, if there is one, with the keypoints that were found in it."""
        picture = _picture(moment, with_keypoints)
        self._picture.visible = picture is not None
        if picture is not None:
            self._picture.image = picture

    # --- the scene ----------------------------------------------------------------------------

    def _place(self, moment: Moment) -> None:
        """Put the floor below the people and the viewer before them."""
        scene = self._server.scene
        name = up_direction(self._up, moment)
        up = _axis(name)
        scene.set_up_direction(name)
        joints = np.concatenate([person.joints for person in moment.people])
        centre = (joints.min(axis=0) + joints.max(axis=0)) / 2
        floor = centre + up * ((joints @ up).min() - centre @ up)
        plane = {'x': 'yz', 'y': 'xz', 'z': 'xy'}[name[1]]
        scene.add_grid('/floor', 6.0, 6.0, plane=plane, position=floor, cell_size=0.5)
        view = _viewpoint(moment.people[0], centre, up, float(np.ptp(joints, axis=0).max()))
        self._server.initial_camera.up = up
        self._server.initial_camera.position = view
        self._server.initial_camera.look_at = centre
        for client in self._server.get_clients().values():
            client.camera.up_direction = up
            client.camera.position = view
            client.camera.look_at = centre
        self._is_placed = True

    def _draw(self, moment: Moment, layers: set[str]) -> None:
        scene, nodes = self._server.scene, set()
        for person in moment.people:
            root = f'/people/{person.body_id}'
            if 'Mesh' in layers and self._has_mesh_of(person):
                for source, part in self._mesh_parts(person).items():
                    nodes.add(f'{root}/mesh/{source.name}')
                    scene.add_mesh_simple(
                        f'{root}/mesh/{source.name}',
                        *part,
                        color=_RGB[source],
                        opacity=0.75 if layers & {'Skeleton', 'Uncertainty'} else None,
                        cast_shadow=False,
                        receive_shadow=False,
                    )
            if 'Skeleton' in layers:
                nodes.add(f'{root}/skeleton')
                colors = np.array([_RGB[source] for source in person.source])
                scene.add_line_segments(
                    f'{root}/skeleton', person.joints[BONES], colors[BONES], thickness=0.012
                )
            if 'Uncertainty' in layers:
                nodes.add(f'{root}/uncertainty')
                scene.add_mesh_simple(
                    f'{root}/uncertainty',
                    *ellipsoids(person.joints[_UNCERTAIN], person.covariance[_UNCERTAIN]),
                    color=_ELLIPSOID_RGB,
                    opacity=0.4,
                    cast_shadow=False,
                    receive_shadow=False,
                )
            nodes.add(f'{root}/label')
            head = person.joints[skeleton.JOINT_INDEX['head']]
            above = head + 0.25 * _unit(head - person.joints[0])
            scene.add_label(
                f'{root}/label', f'{person.body_id} {person.status.name}', position=above
            )
        if 'Keypoints' in layers:
            nodes |= self._draw_keypoints(moment.observations)
        for name in self._nodes - nodes:
            scene.remove_by_name(name)
        self._nodes = nodes

    def _draw_keypoints(self, observations: Sequence[Observation]) -> set[str]:
        """3D points where they are; of 2D ones the camera, whose picture is on the panel."""
        solid = [o.points[o.confidence > 0] for o in observations if o.dim == 3]
        camera = next((o.camera for o in observations if o.dim == 2), None)
        nodes = set()
        if solid:
            nodes.add('/keypoints')
            self._server.scene.add_point_cloud(
                '/keypoints', np.concatenate(solid), _POINT_RGB, point_size=0.008
            )
        if camera is not None:
            nodes.add('/camera')
            width, height = _size(camera)
            self._server.scene.add_camera_frustum(
                '/camera', 2 * np.arctan(height / (2 * camera.fy)), width / height, scale=0.2
            )
        return nodes

    def _has_mesh_of(self, person: Person) -> bool:
        return person.model.split('/')[-1] == self._body.tables.sha256[:8]

    def _mismatch(self, moment: Moment) -> str:
        other = next((p.model for p in moment.people if not self._has_mesh_of(p)), '')
        return f'no mesh: fitted with {other}; give that file with --model' if other else ''

    def _mesh_parts(self, person: Person) -> dict[Source, tuple[np.ndarray, np.ndarray]]:
        """Source -> vertices and faces of what was obtained so; a face follows its worst corner.

        A mesh of viser has one colour.
        """
        vertices = self._body.vertices(
            person.pose_rotvec, person.betas, person.expression, person.transl
        )[0]
        of_face = person.source[self._face_joints].max(axis=1)
        parts = {}
        for source in np.unique(of_face):
            used, faces = np.unique(self._body.faces[of_face == source], return_inverse=True)
            parts[Source(int(source))] = vertices[used], faces.reshape(-1, 3)
        return parts


def up_direction(choice: str, moment: Moment) -> str:
    """Such as '+z'; optical frames look along z with y down, all others follow REP 103."""
    if choice != 'auto':
        return choice
    is_optical = 'optical' in moment.frame_id or any(o.dim == 2 for o in moment.observations)
    return '-y' if is_optical else '+z'


def ellipsoids(centres: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One mesh, (V, 3) and (F, 3), of the ellipsoids of `SIGMAS` sigma about (N, 3) points."""
    ball, faces = _ball()
    values, axes = np.linalg.eigh(covariance)
    radii = SIGMAS * np.sqrt(np.maximum(values, 1e-6))
    vertices = np.einsum('vk,nk,nik->nvi', ball, radii, axes) + centres[:, None]
    offsets = len(ball) * np.arange(len(centres))
    return vertices.reshape(-1, 3), (faces + offsets[:, None, None]).reshape(-1, 3)


def _ball(rings: int = 7, spokes: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """The unit sphere as a grid of latitudes and longitudes, outside to the front.

    With an equator and a multiple of four spokes it reaches as far as the sphere on every axis.
    """
    polar, around = np.meshgrid(
        np.linspace(0.0, np.pi, rings), np.linspace(0.0, 2 * np.pi, spokes + 1), indexing='ij'
    )
    points = np.stack(
        [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=-1
    )
    corner = np.arange((rings - 1) * (spokes + 1)).reshape(rings - 1, spokes + 1)[:, :-1].ravel()
    right, below = corner + 1, corner + spokes + 1
    faces = np.stack([corner, below, right, right, below, below + 1], axis=-1)
    return points.reshape(-1, 3), faces.reshape(-1, 3)


def _picture(moment: Moment, with_keypoints: bool) -> np.ndarray | None:
    """(H, W, 3) RGB; None if there is neither image nor 2D keypoints."""
    flat = [o for o in moment.observations if o.dim == 2]
    image = None
    if moment.picture:
        image = cv2.imdecode(np.frombuffer(moment.picture, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        if not flat or not with_keypoints:
            return None
        width, height = _size(flat[0].camera)
        image = np.full((height, width, 3), render.BACKGROUND, np.uint8)
    if with_keypoints:
        for observation in flat:
            image = render.draw_keypoints(image, observation.points, observation.confidence)
    height = round(PICTURE_WIDTH * image.shape[0] / image.shape[1])
    small = cv2.resize(image, (PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2RGB)


def _size(camera: PinholeCamera) -> tuple[int, int]:
    """Width and height of its picture; a camera that does not say is taken as centred."""
    return camera.width or round(2 * camera.cx) + 1, camera.height or round(2 * camera.cy) + 1


def _status(moment: Moment, note: str) -> str:
    """Each person in words; ids come from topics and files and are not trusted."""
    people = [
        f'<b>{html.escape(person.body_id)}</b> {person.status.name}, quality '
        f'{person.quality.name}<br>{person.observed_fraction:.0%} of the joints seen, confidence '
        f'{person.confidence:.2f}<br>left hand {_hand(person, 0)}, right hand {_hand(person, 1)}'
        for person in moment.people
    ]
    where = f'{moment.stamp_ns * 1e-9:.3f} s in {moment.frame_id or "an unnamed frame"}'
    lines = [*(people or ['nobody']), html.escape(where), html.escape(note)]
    return f'<div style="{_SMALL}">{"<br>".join(filter(None, lines))}</div>'


def _hand(person: Person, side: int) -> str:
    source = Source(hand_source(person.source[_HANDS[side]]))
    return f'{_square(source)} {source.name.lower()}'


def _square(source: Source) -> str:
    return f'<span style="color:rgb{_RGB[source]}">&#9632;</span>'


def _legend() -> str:
    labels = (f'{_square(source)} {label}' for source, label in render.SOURCE_LABELS.items())
    return f'<div style="{_SMALL}">{"&ensp;".join(labels)}</div>'


def _viewpoint(person: Person, centre: np.ndarray, up: np.ndarray, extent: float) -> np.ndarray:
    """In front of the person, a little to the side and above."""
    forward = cv2.Rodrigues(person.pose_rotvec[0])[0][:, 2]  # SMPL-X faces along z
    level = forward - up * (forward @ up)
    if np.linalg.norm(level) < 0.2:  # lying: from anywhere
        level = np.roll(up, 1)
    level = _unit(level)
    side = np.cross(up, level)
    return centre + max(extent, 1.0) * (1.2 * level + 0.6 * side + 0.3 * up)


def _axis(name: str) -> np.ndarray:
    return np.eye(3)['xyz'.index(name[1])] * (1.0 if name[0] == '+' else -1.0)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
