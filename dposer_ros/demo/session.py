"""What `dposer demo` does, in order: run, read the recording back, report, film."""

import shutil
from pathlib import Path

import numpy as np
from rich.progress import Progress

from dposer_core.body_model import load_body
from dposer_core.video import video_info
from dposer_ros import launch_arguments
from dposer_ros.demo.bag import DemoRecording, read_recording
from dposer_ros.demo.clips import Clip, clip_length, multiview_clips
from dposer_ros.demo.film import write_film, write_picture
from dposer_ros.demo.report import compare_with_triangulation, frame_counts, make_report
from dposer_ros.demo.run import (
    RunRecord,
    clip_source,
    keypoint_source,
    record_run,
    run_module,
)

RESULTS = ('demo.mp4', 'demo.png', 'demo.mcap', 'demo_3d.mcap', 'keypoints_3d.npz', 'report.json')


def run_clip(
    name: str,
    clip: Clip,
    output: Path,
    node_arguments: list[str],
    domain: int | None,
    film: bool,
    progress: Progress,
) -> dict:
    """The whole demo of one clip; returns the report.

    Args:
        name: of the clip, as the user gave it.
        clip: the piece of video to play.
        output: folder for the results; those of an earlier demo in it are removed.
        node_arguments: `name:=value` for `dposer up wholebody`.
        domain: ROS domain; None: a free one.
        film: whether to make the video and the picture.
        progress: shows how far it is.
    """
    # Before any process starts, for both may be wrong: the arguments and the body.
    body = load_body(launch_arguments.parse(node_arguments)['model_path'])
    source = clip_source(name, clip)
    output.mkdir(parents=True, exist_ok=True)
    for result in RESULTS:
        (output / result).unlink(missing_ok=True)
    shutil.rmtree(output / 'log', ignore_errors=True)
    run = record_run(source, output / 'demo.mcap', node_arguments, progress, domain)
    recording = read_recording(run.bag)
    report = {'clip': name, **make_report(recording, run, body)}
    if name == 'multiview':
        report |= _multiview(output, recording, run, node_arguments, domain, progress)
    if film:
        _film(recording, body, output, progress)
    return report


def _multiview(
    output: Path,
    monocular: DemoRecording,
    run: RunRecord,
    node_arguments: list[str],
    domain: int | None,
    progress: Progress,
) -> dict:
    """Triangulate all cameras, feed the 3D path, and compare both fits with the triangulation."""
    clip = multiview_clips()[0]
    info = video_info(clip.video)
    frames, rate = clip_length(clip, info), info.rate / clip.step
    path = output / 'keypoints_3d.npz'
    run_module(
        'dposer_ros.demo.multiview', [str(path)], output, 4 * frames, 'all cameras', progress
    )
    with np.load(path) as archive:
        truth, error_px = archive['points'], archive['error_px']
    run_3d = record_run(
        keypoint_source(path, len(truth)),
        output / 'demo_3d.mcap',
        node_arguments,
        progress,
        domain,
    )
    fit_3d = read_recording(run_3d.bag)
    return {
        'triangulation_error_px': float(np.nanmedian(error_px[:, 5:17])),
        'monocular_against_triangulation': compare_with_triangulation(
            monocular, run.start_ns, truth, rate
        ),
        'fit_3d_against_triangulation': compare_with_triangulation(
            fit_3d, run_3d.start_ns, truth, rate
        ),
        'frames_3d': frame_counts(fit_3d, run_3d),
    }


def _film(recording: DemoRecording, body, output: Path, progress: Progress) -> None:
    if not recording.images or recording.camera is None:
        return
    task = progress.add_task('drawing the film', total=len(recording.images))
    write_film(recording, body, output / 'demo.mp4', lambda: progress.advance(task))
    write_picture(recording, body, output / 'demo.png')
    progress.remove_task(task)
