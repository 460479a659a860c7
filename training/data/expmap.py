"""Reader of CMU motion as exponential maps: text rows of a root position and 38 rotation vectors.

Row-vector convention: the column-vector rotation of a joint is exp(-v). Rest pose and units are
those of CMU's ASF files; the bones get their ASF names, so one retargeting table serves both.

The root of these files is wrong where a person faces 90 degrees to either side: within some frames
it tips over by up to 90 degrees and back (12 % of walking_48, 11 % of directing_traffic_1). The
rotations within the body, which the priors learn, are not touched by it.
"""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core.errors import MediaError
from training.data.motion import SourceMotion

FPS = 120.0  # not stated in the files; CMU's capture rate
METRES_PER_UNIT = 0.0254 / 0.45  # as CMU's ASF files

# Joint order of the files with the ASF name of each; '' marks an end site.
_JOINTS = (
    'root', 'lhipjoint', 'lfemur', 'ltibia', 'lfoot', 'ltoes', '',
    'rhipjoint', 'rfemur', 'rtibia', 'rfoot', 'rtoes', '',
    'lowerback', 'upperback', 'thorax', 'lowerneck', 'upperneck', 'head', '',
    'lclavicle', 'lhumerus', 'lradius', 'lhand', 'lfingers', 'lindex', '', 'lthumb', '',
    'rclavicle', 'rhumerus', 'rradius', 'rhand', 'rfingers', 'rindex', '', 'rthumb', '',
)  # fmt: skip
_PARENTS = (
    -1, 0, 1, 2, 3, 4, 5,
    0, 7, 8, 9, 10, 11,
    0, 13, 14, 15, 16, 17, 18,
    15, 20, 21, 22, 23, 24, 25, 23, 27,
    15, 29, 30, 31, 32, 33, 34, 32, 36,
)  # fmt: skip
# The first row of each file is a T-pose whose hips turn by this angle to bring the legs down:
# the legs of the rest pose are spread by it.
LEG_SPREAD = 0.366519143


def read_expmap(path: Path, subject: str, source: str) -> SourceMotion:
    """The motion in `path`, without its first row (a T-pose).

    Raises:
        MediaError: rows that do not hold 3 + 38 x 3 numbers.
    """
    try:
        values = np.loadtxt(path, delimiter=',', ndmin=2)
    except ValueError as error:
        raise MediaError(f'{path}: not rows of comma-separated numbers') from error
    width = 3 + 3 * len(_JOINTS)
    if values.shape[1] != width or len(values) < 2:
        raise MediaError(f'{path}: shape {values.shape}, expected at least 2 rows of {width}')
    values = values[1:]
    rotvecs = values[:, 3:].reshape(len(values), len(_JOINTS), 3)
    world: list[Rotation] = []
    for joint, parent in enumerate(_PARENTS):
        local = Rotation.from_rotvec(-rotvecs[:, joint])
        world.append(world[parent] * local if parent >= 0 else local)
    leg = np.array([np.sin(LEG_SPREAD), -np.cos(LEG_SPREAD), 0.0])
    mirror = np.array([-1.0, 1.0, 1.0])
    directions = {'lfemur': leg, 'ltibia': leg, 'rfemur': leg * mirror, 'rtibia': leg * mirror}
    for side, sign in (('l', 1.0), ('r', -1.0)):
        for bone in ('humerus', 'radius', 'hand'):
            directions[side + bone] = np.array([sign, 0.0, 0.0])
    return SourceMotion(
        name=path.stem,
        subject=subject,
        source=source,
        fps=FPS,
        pelvis=values[:, :3] * METRES_PER_UNIT,
        world_rotmat={
            name: rotation.as_matrix()
            for name, rotation in zip(_JOINTS, world, strict=True)
            if name
        },
        rest_direction=directions,
    )
