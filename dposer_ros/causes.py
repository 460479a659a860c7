"""Every cause that the node counts a refusal or failure under: what happened, and what cures it.

`dposer doctor --live` names the cure of what it sees, docs/TROUBLESHOOTING.md lists them all.
"""

from typing import NamedTuple


class Cause(NamedTuple):
    """One row of the table."""

    what: str
    cure: str


CAUSES = {
    'adapter': Cause(
        'the message of another detector is damaged, or holds what its adapter cannot place',
        'compare it with the type in `input.type`; for multiarray and JSON give `input.layout`',
    ),
    'behind_prediction': Cause(
        'a frame came after its moment had been predicted and published',
        'make the detector faster or steadier; more than 0.25 s between frames is silence',
    ),
    'callback_failed': Cause(
        'a callback raised what nobody foresaw; the node went on',
        'the log has the traceback; report it',
    ),
    'camera_info': Cause(
        'camera_info is not calibrated (K is zero), or its lens model is unknown',
        'calibrate the camera, or publish the camera_info that belongs to the image',
    ),
    'count': Cause(
        'the numbers of points, confidences and covariances of a person do not fit each other',
        'send K x dim points, K confidences or none, and `layout` or `names` with K entries',
    ),
    'dim': Cause('`dim` is neither 2 nor 3', 'set it to DIM_2D or DIM_3D'),
    'fit_failed': Cause(
        'the fit raised; everybody was forgotten and is found anew',
        'the log has the traceback; report it with a `~/snapshot`',
    ),
    'fit_hangs': Cause(
        'the fit in progress takes longer than `worker.hang_timeout`',
        'free the processor, or run `worker.isolation: process`, which starts it again',
    ),
    'frame': Cause(
        '3D keypoints beside 2D ones stand in another frame',
        'publish them in the optical frame of the camera',
    ),
    'fusion_failed': Cause(
        'dposer_fusion raised what nobody foresaw; the instant is lost',
        'the log has the traceback; report it',
    ),
    'image': Cause(
        'the drawing node cannot read the picture',
        'publish an encoding that cv_bridge knows, or a JPEG or PNG on the compressed topic',
    ),
    'image_size': Cause(
        'keypoints and camera_info belong to pictures of different size',
        'publish a camera_info for the picture that the detector sees',
    ),
    'incompatible_qos': Cause(
        'publisher and subscriber cannot agree on QoS: no message passes',
        'change the policy that the log names, there or here by `qos_overrides.<topic>`',
    ),
    'layout': Cause(
        'nobody knows this order of points',
        'use a name of docs/KEYPOINTS.md, or custom and `names`',
    ),
    'model': Cause(
        'the drawing node has another body model than the states it is to draw',
        'let both load the same body file',
    ),
    'no_camera': Cause(
        '2D keypoints came, but no camera_info',
        'publish one, or remap it: `camera_info_topic:=/camera/camera_info`',
    ),
    'no_camera_info': Cause(
        'the drawing node has a picture and no camera_info yet',
        'remap its camera_info to the topic that belongs to the image',
    ),
    'no_extrinsics': Cause(
        'dposer_fusion does not know where a camera stands',
        'publish /tf_static from `world_frame` to the frame of camera_info, or set `calibration`',
    ),
    'no_frame': Cause(
        'the keypoints name no frame, so no TF can be broadcast',
        'set `header.frame_id`, for types without a header `input.frame_id`',
    ),
    'no_points': Cause(
        'no point of a person reaches `input.confidence_threshold`',
        'lower the threshold, or see whether the detector gives confidences from 0 to 1',
    ),
    'no_transform': Cause(
        '/tf does not connect the frame of the keypoints with `output_frame`; published unmoved',
        'publish the transforms of the camera, or look for the name that the log gives',
    ),
    'not_finite': Cause(
        'more than half of the points of a person are infinite, huge, or have no valid confidence',
        'send NaN for absent points; look for a division by zero in the detector',
    ),
    'not_shown': Cause(
        'the viewer cannot read a message', 'the log names what came and what was expected'
    ),
    'output_failed': Cause(
        'a topic beside the states could not be made', 'the log has the traceback; report it'
    ),
    'result_not_finite': Cause(
        'the fit of a person gave a number that is not finite; the person is found anew',
        'rare: none; often: report it with a `~/snapshot`',
    ),
    'stamp_future': Cause(
        'stamps lie ahead of the clock by more than `input.max_future`',
        'synchronise the clocks (chrony, PTP), or give both sides the same `use_sim_time`',
    ),
    'stamp_order': Cause(
        'a frame came after a newer one',
        'keep the order in the detector; frames that overtake each other are dropped',
    ),
    'stamp_repeated': Cause('two frames have the same stamp', 'stamp each with its image'),
    'stamp_stale': Cause(
        'frames are older than `input.max_age` when they can be fitted',
        'a faster detector, synchronised clocks; a bag needs `--clock` and `use_sim_time:=true`',
    ),
    'stamp_zero': Cause('the stamp is zero', 'copy the stamp of the image into `header.stamp`'),
    'unclaimed': Cause(
        '3D points beside 2D ones lie on nobody in the picture',
        'look at the calibration between the two detectors, and at their latencies',
    ),
    'states': Cause(
        'the drawing node cannot read the states',
        'use the same version of this package on both sides',
    ),
    'unit': Cause(
        '`unit` does not fit `dim`, or normalised points lack the size of the image',
        '2D: UNIT_PIXEL, or UNIT_NORMALIZED with image_width and image_height; 3D: UNIT_METRE',
    ),
    'unpaired': Cause(
        'points came on `keypoints_3d` for a time at which `keypoints` has no frame',
        'stamp both with the time of the image; raise `input.sync_slop` for slow cameras',
    ),
}


def table() -> str:
    """The table of causes in docs/TROUBLESHOOTING.md."""
    rows = [f'| `{name}` | {cause.what} | {cause.cure} |' for name, cause in CAUSES.items()]
    return '\n'.join(['| cause | what happened | cure |', '|---|---|---|', *rows])
