"""What the open body is made of: which MakeHuman bone goes where, its rest pose, its people."""

import numpy as np

# First matching prefix of a bone's name -> (joint, share); the side is that of the bone. Bones
# not named here are those of the face and go to the head.
BONE_SHARES: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = (
    ('root', (('pelvis', 1.0),)),
    ('pelvis', (('pelvis', 1.0),)),
    ('spine05', (('pelvis', 1.0),)),
    ('spine04', (('pelvis', 0.5), ('spine1', 0.5))),  # five vertebrae on four joints
    ('spine03', (('spine1', 1.0),)),
    ('spine02', (('spine2', 1.0),)),
    ('breast', (('spine2', 1.0),)),
    ('spine01', (('spine3', 1.0),)),
    ('neck03', (('head', 1.0),)),
    ('neck', (('neck', 1.0),)),
    ('clavicle', (('collar', 1.0),)),
    ('shoulder01', (('collar', 0.8), ('shoulder', 0.2))),  # the deltoid
    ('upperarm', (('shoulder', 1.0),)),
    ('lowerarm', (('elbow', 1.0),)),
    ('wrist', (('wrist', 1.0),)),
    ('metacarpal', (('wrist', 1.0),)),
    ('upperleg', (('hip', 1.0),)),
    ('lowerleg', (('knee', 1.0),)),
    ('foot', (('ankle', 1.0),)),
    ('toe', (('foot', 1.0),)),
    ('jaw', (('jaw', 1.0),)),
    ('tongue', (('jaw', 1.0),)),
    ('special04', (('jaw', 1.0),)),
    ('oris01', (('jaw', 1.0),)),  # lower lip; the upper one (oris03, oris05) stays on the head
    ('oris07', (('jaw', 1.0),)),
    ('eye', (('eye', 1.0),)),
)

# Joint (without side) -> mean of bone heads. Fingers: bone heads of the same finger.
JOINT_POINTS: dict[str, tuple[tuple[str, float], ...]] = {
    'pelvis': (('spine05', 1.0),),
    'spine1': (('spine04', 0.5), ('spine03', 0.5)),
    'spine2': (('spine02', 1.0),),
    'spine3': (('spine01', 1.0),),
    'neck': (('neck01', 1.0),),
    'head': (('head', 1.0),),
    'jaw': (('jaw', 1.0),),
    'eye': (('eye', 1.0),),
    'collar': (('clavicle', 1.0),),
    'shoulder': (('upperarm01', 1.0),),
    'elbow': (('lowerarm01', 1.0),),
    'wrist': (('wrist', 1.0),),
    # MakeHuman's legs start 22 cm apart; the balls of human thigh bones are about 18 cm apart.
    'hip': (('upperleg01', 0.85), ('pelvis', 0.15)),
    'knee': (('lowerleg01', 1.0),),
    'ankle': (('foot', 1.0),),
    'foot': tuple((f'toe{i}-1', 0.2) for i in range(1, 6)),
}

# Directions of the left side at rest (x outwards, y up, z forwards), any length. Legs: those that
# the rest pose of SMPL-X has, so that motion recorded for it means the same here. Fingers: flat
# hand, spread as in MakeHuman.
REST_DIRECTIONS: dict[str, np.ndarray] = {
    name: np.array(direction)
    for name, direction in {
        'hip': (0.11, -0.99, -0.03),
        'knee': (-0.06, -0.99, -0.07),
        'ankle': (0.17, 0.0, 0.98),
        **{f'index{i}': (1.0, -0.03, 0.10) for i in (1, 2, 3)},
        **{f'middle{i}': (1.0, -0.03, 0.0) for i in (1, 2, 3)},
        **{f'ring{i}': (1.0, -0.03, -0.10) for i in (1, 2, 3)},
        **{f'pinky{i}': (1.0, -0.03, -0.22) for i in (1, 2, 3)},
        'thumb1': (0.60, -0.42, 0.68),
        'thumb2': (0.72, -0.36, 0.60),
        'thumb3': (0.78, -0.32, 0.54),
    }.items()
}

# anny's phenotype axes, each in [0, 1]: mean, sigma, lowest, highest. `gender` is the distance
# from the middle, to either side with equal chance.
PHENOTYPES: dict[str, tuple[float, float, float, float]] = {
    'gender': (0.4, 0.1, 0.0, 0.5),
    'age': (0.70, 0.12, 0.50, 1.0),
    'muscle': (0.5, 0.25, 0.0, 1.0),
    'weight': (0.5, 0.25, 0.0, 1.0),
    # Narrow: gives the spread of statures of grown-ups, 7 cm per sex.
    'height': (0.41, 0.05, 0.05, 0.95),
    'proportions': (0.5, 0.25, 0.0, 1.0),
    'cupsize': (0.5, 0.2, 0.0, 1.0),
    'firmness': (0.5, 0.2, 0.0, 1.0),
    'african': (0.5, 0.3, 0.02, 1.0),
    'asian': (0.5, 0.3, 0.02, 1.0),
    'caucasian': (0.5, 0.3, 0.02, 1.0),
}
