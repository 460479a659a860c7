"""Figures of evaluated bags on states whose answers are known."""

import dataclasses

import numpy as np
import pytest
from null_fitter import result

from dposer_core import skeleton
from dposer_core.errors import MediaError
from dposer_core.metrics import accelerations
from dposer_core.observation import Observation
from dposer_core.state import Source, Status
from dposer_core.states_io import States, states_from_results, write_states
from dposer_ros.evaluation.accuracy import Accuracy, accuracy_of, best_median_worst
from dposer_ros.evaluation.comparison import identical, metrics_of
from dposer_ros.evaluation.figures import figures, jitter, refusals
from dposer_ros.evaluation.hands import hidden_hands
from dposer_ros.evaluation.matching import match
from dposer_ros.evaluation.motion import JOINTS, Motion, of_states, read_other
from dposer_ros.evaluation.page import page
from dposer_ros.evaluation.run import make_run
from dposer_ros.replay import Clip, Replay

pytestmark = pytest.mark.ros

PERIOD_NS = 40_000_000
REST = result().state.joints


def states_of(people: dict[str, np.ndarray], stamps=None, **arrays) -> States:
    """States of body_id -> joints (T, 55, 3), people side by side in every frame."""
    frames = len(next(iter(people.values())))
    stamps = np.arange(1, frames + 1) * PERIOD_NS if stamps is None else np.asarray(stamps)
    results = [
        result(
            int(stamps[k]), body, joints=joints[k], landmarks=np.zeros((133, 3)) + joints[k, :1]
        )
        for k in range(frames)
        for body, joints in people.items()
    ]
    states = states_from_results(results, 'null/00000000')
    return dataclasses.replace(states, **arrays)


def standing_at(x, frames: int) -> np.ndarray:
    """(T, 55, 3) of somebody at x (T,) metres."""
    return REST + np.broadcast_to(x, frames)[:, None, None] * np.array([1.0, 0.0, 0.0])


# --- jitter ---


def test_uneven_stamps_do_not_change_the_acceleration():
    seconds = np.array([0.0, 0.04, 0.05, 0.13, 0.17])
    positions = (1.5 * seconds**2)[:, None, None] * np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(accelerations(positions, seconds)[..., 1], 3.0, rtol=1e-9)


def test_jitter_goes_by_the_stamps_and_not_over_gaps():
    seconds = np.array([0.0, 0.04, 0.05, 0.13, 0.17, 2.0, 2.04])
    joints = standing_at(0.5 * seconds**2, len(seconds))
    joints[5:] += 7.0  # after the gap somewhere else
    states = states_of({'p0001': joints}, stamps=(1e9 + seconds * 1e9).astype(np.int64))
    assert jitter(states.joints, states)['body']['p95'] == pytest.approx(1000.0, rel=1e-4)


# --- who is who ---


def crossing(swap_at: int | None) -> tuple[States, Motion, list[int]]:
    frames = 20
    way = np.linspace(-1.0, 1.0, frames)
    truth = {'anna': standing_at(way, frames), 'ben': standing_at(-way, frames)}
    truth['ben'] = truth['ben'] + (0.0, 0.0, 0.5)
    own = {'p0001': truth['anna'].copy(), 'p0002': truth['ben'].copy()}
    if swap_at is not None:
        own['p0001'][swap_at:] = truth['ben'][swap_at:]
        own['p0002'][swap_at:] = truth['anna'][swap_at:]
    states = states_of(own)
    motion = of_states(states_of(truth), 'truth')
    return states, motion, sorted({int(s) for s in states.stamp_ns})


def test_people_who_cross_keep_their_tracks():
    states, motion, stamps = crossing(None)
    found = match(states, stamps, motion)
    assert not found.swaps and found.new_ids == 0 and found.unmatched == 0
    assert set(found.person[states.body_id == 'p0001']) == {'anna'}


def test_exchanged_tracks_are_two_swaps_at_their_time():
    states, motion, stamps = crossing(10)
    swaps = match(states, stamps, motion).swaps
    assert {(swap.body_id, swap.before, swap.after) for swap in swaps} == {
        ('p0001', 'anna', 'ben'),
        ('p0002', 'ben', 'anna'),
    }
    assert {swap.stamp_ns for swap in swaps} == {stamps[10]}


def test_a_fresh_id_of_a_known_person_is_no_swap():
    truth = standing_at(0.0, 10)
    states = states_of({'p0001': truth})
    states.body_id[6:] = 'p0002'
    found = match(
        states, [int(s) for s in states.stamp_ns], of_states(states_of({'a': truth}), '')
    )
    assert not found.swaps and found.new_ids == 1
    assert found.people['a'].body_ids == ['p0001', 'p0002']


def test_gaps_are_of_frames_without_a_fitted_state():
    truth = standing_at(0.0, 12)
    states = states_of({'p0001': truth})
    states.status[3:8] = Status.PREDICTED
    stamps = [int(s) for s in states.stamp_ns]
    person = match(states, stamps, of_states(states_of({'a': truth}), '')).people['a']
    assert (person.frames, person.matched, person.fitted) == (12, 12, 7)
    assert person.longest_gap_s == pytest.approx(5 * PERIOD_NS * 1e-9)


def test_a_state_far_from_everybody_belongs_to_nobody():
    truth = standing_at(0.0, 3)
    states = states_of({'p0001': truth, 'p0002': truth + (3.0, 0.0, 0.0)})
    found = match(
        states, [int(s) for s in states.stamp_ns[::2]], of_states(states_of({'a': truth}), '')
    )
    assert found.unmatched == 3 and not found.known[states.body_id == 'p0002'].any()


def test_truth_is_interpolated_between_its_samples_only():
    motion = of_states(states_of({'a': standing_at(np.arange(3.0), 3)}), '')
    half = motion.at(PERIOD_NS * 3 // 2)['a'] - REST
    np.testing.assert_allclose(half[:, 0], 0.5, atol=1e-9)
    assert motion.at(PERIOD_NS // 2) == {} and motion.at(4 * PERIOD_NS) == {}


# --- errors ---


def against(own: np.ndarray, truth: np.ndarray, **arrays) -> Accuracy:
    states = states_of({'p0001': own}, **arrays)
    stamps = [int(s) for s in states.stamp_ns]
    return Accuracy(states, stamps, of_states(states_of({'a': truth}), 'truth'))


def test_a_shifted_person_is_right_about_the_pelvis():
    truth = standing_at(0.0, 5)
    found = against(truth + (0.0, 0.0, 0.25), truth).figures()
    assert found['pelvis_m']['median'] == pytest.approx(0.25)
    errors = found['error_mm']['all']
    assert errors['pelvis_aligned'] == pytest.approx(0.0, abs=1e-6)
    assert errors['procrustes'] == pytest.approx(0.0, abs=1e-6)
    assert errors['absolute'] == pytest.approx(250.0)


def test_errors_are_told_apart_by_part_and_provenance():
    truth = standing_at(0.0, 5)
    own = truth.copy()
    left = JOINTS.parts['left_hand']
    own[:, left] += (0.0, 0.1, 0.0)
    source = np.zeros((5, 55), dtype=np.uint8)
    source[:, left] = Source.COMPLETED
    found = against(own, truth, source=source).figures()
    assert found['error_mm']['body']['pelvis_aligned'] == pytest.approx(0.0, abs=1e-6)
    assert found['error_mm']['hands']['wrist_aligned'] == pytest.approx(50.0)  # one of two hands
    assert found['by_source_mm']['completed']['hands'] == pytest.approx(100.0)
    assert found['by_source_mm']['observed']['hands'] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(('told', 'share'), [(0.03, 0.683), (0.06, 0.954), (0.015, 0.383)])
def test_share_within_one_sigma_is_that_of_a_normal_distribution(told, share):
    truth = standing_at(0.0, 80)
    noise = np.random.default_rng(3).normal(0.0, 0.03, truth.shape)
    scale = np.array([1.0, 2.0, 0.5])  # along the axes
    covariance = np.broadcast_to(np.diag((told * scale) ** 2), (80, 55, 3, 3))
    found = against(truth + noise * scale, truth, position_covariance=covariance)
    # 80 * 52 * 3 coordinates: the share has a standard error of 0.004.
    assert found.within(found.error)['all']['share'] == pytest.approx(share, abs=0.015)
    if told == 0.03:
        curve = found.curve(found.error)['all']
        np.testing.assert_allclose(curve, np.linspace(0.05, 0.95, 19), atol=0.015)


def test_acceleration_error_is_of_the_difference():
    frames = 30
    seconds = np.arange(frames) * PERIOD_NS * 1e-9
    truth = standing_at(np.sin(seconds), frames)
    found = against(truth + standing_at(seconds**2, frames) - REST, truth).figures()
    assert found['acceleration_error_mm_s2']['mean'] == pytest.approx(2000.0, rel=1e-3)


def test_best_median_and_worst_are_fitted_states():
    states = states_of({'p0001': standing_at(0.0, 5)})
    states.status[0] = Status.PREDICTED
    errors = np.array([0.0, 4.0, 2.0, np.nan, 3.0])
    assert best_median_worst(errors, states) == {'best': 2, 'median': 4, 'worst': 1}


def test_truth_of_another_time_is_refused():
    truth = states_of({'a': standing_at(0.0, 3)}, stamps=[10**12, 2 * 10**12, 3 * 10**12])
    states = states_of({'p0001': standing_at(0.0, 3)})
    with pytest.raises(MediaError, match=r'1000\.000 to 3000\.000 s against 0\.040 to 0\.120 s'):
        Accuracy(states, [int(s) for s in states.stamp_ns], of_states(truth, 'truth'))


def test_truth_in_another_frame_is_refused():
    run = run_of([result(PERIOD_NS)])
    motion = dataclasses.replace(of_states(run.states, '/truth'), frame_id='map')
    with pytest.raises(MediaError, match="in frame 'map', the keypoints are in 'camera'"):
        accuracy_of(run, motion)


# --- hidden hands ---


def run_of(results, hidden: range = range(0), threshold: float = 0.3):
    """A run of one person whose right hand has no keypoints in the frames `hidden`."""
    frames = []
    for k, fitted in enumerate(results):
        confidence = np.ones(133)
        if k in hidden:
            confidence[112:] = 0.0
        seen = Observation(fitted.state.stamp_ns, fitted.state.landmarks.copy(), confidence)
        frames.append((fitted.state.stamp_ns, [seen]))
    clip = Clip('test', frames, None, frame_id='camera')
    outcome = Replay(results=list(results), frames=len(frames), warm_seconds=[0.01, 0.02])
    return make_run(clip, outcome, 'null/00000000', threshold)


def with_hidden_right_hand(jump: float, hidden: range, frames: int = 12) -> list:
    results = []
    for k in range(frames):
        joints, source = REST.copy(), np.zeros(55, dtype=np.uint8)
        away = k in hidden
        moved = [skeleton.JOINT_INDEX['right_wrist'], *JOINTS.parts['right_hand']]
        if away:
            source[JOINTS.parts['right_hand']] = Source.COMPLETED
            joints[moved] += (jump, 0.0, 0.0)
        seconds = (k - hidden.start + 1) * PERIOD_NS * 1e-9 if away else 0.0
        fitted = result((k + 1) * PERIOD_NS, joints=joints, source=source)
        results.append(dataclasses.replace(fitted, hand_occluded_s=(0.0, seconds)))
    return results


def test_hidden_hand_is_counted_from_its_last_sight_to_its_return():
    hidden = range(4, 9)
    found = hidden_hands(run_of(with_hidden_right_hand(0.03, hidden), hidden))
    assert (found['frames'], found['occlusions'], found['returned']) == (5, 1, 1)
    assert found['source']['completed'] == 1.0 and found['source_right'] == 1.0
    assert found['longest_s'] == pytest.approx(6 * PERIOD_NS * 1e-9)
    assert found['jump_mm']['max'] == pytest.approx(30.0) and found['jump_inside'] == 1.0
    assert found['frames_until_trusted'] == 1
    assert found['occluded_for_error_s'] == pytest.approx(0.0, abs=1e-9)


def test_a_jump_out_of_the_region_is_told():
    hidden = range(4, 9)
    found = hidden_hands(run_of(with_hidden_right_hand(0.2, hidden), hidden))  # sigma is 0.02
    assert found['jump_mm']['max'] == pytest.approx(200.0) and found['jump_inside'] == 0.0


def test_frames_until_a_returned_hand_is_trusted():
    # The keypoints are back three frames before the answer says so.
    found = hidden_hands(run_of(with_hidden_right_hand(0.0, range(4, 9)), range(4, 6)))
    assert found['frames_until_trusted'] == 4
    assert found['detected_but_not_trusted_frames'] == 3


def test_an_invented_observation_is_told():
    found = hidden_hands(run_of(with_hidden_right_hand(0.0, range(0)), range(3, 6)))
    assert found['frames'] == 3 and found['source_right'] == 0.0


# --- the rest of the figures, the page, other runs ---


def test_figures_count_silence_and_refusals():
    results = with_hidden_right_hand(0.0, range(0))
    run = run_of(results)
    run.clip.refused.update({'unit: unit 7: must be pixel': 2, 'unit: unit 8: must be': 1})
    found = figures(run)
    assert found['frames'] == 12 and found['coverage'] == 1.0
    assert found['refused'] == {'unit': {'count': 3, 'example': 'unit 7: must be pixel'}}
    assert found['events'] == {'CREATED': 1}
    assert found['hidden_hands']['frames'] == 0
    assert refusals({}) == {}


def test_page_shows_text_of_a_bag_as_text(tmp_path, standing):
    from dposer_core.body_model import load_body
    from dposer_ros.evaluation.evaluate import Findings

    hidden = range(4, 9)
    run = run_of(with_hidden_right_hand(0.03, hidden), hidden)
    evil = '<script>alert("../../x")</script>'
    motion = of_states(states_of({evil: run.states.joints}), evil)
    run.clip.refused[f'layout: {evil}'] = 1
    accuracy = accuracy_of(run, motion)
    metrics = {**figures(run), 'truth': accuracy.figures(), 'refused_outputs': {}}
    text = page(
        Findings(evil, run, load_body(), metrics, {'p50': 1.0}, accuracy, None, {'frames': evil})
    )
    assert '<script' not in text and '&lt;script&gt;' in text
    for title in ('Where people went', 'How joints were obtained', 'Error', 'Calibration',
                  'Hidden hands', 'Events', 'Latency', 'Best, median and worst'):  # fmt: skip
        assert title in text
    assert text.count('data:image/png') == 6 and text.count('data:image/jpeg') == 3
    assert 'src="http' not in text


def test_other_runs_are_found_by_folder_and_by_file(tmp_path):
    states = states_of({'p0001': standing_at(0.0, 4)})
    write_states(tmp_path / 'states.npz', states)
    for path in (tmp_path, tmp_path / 'states.npz'):
        np.testing.assert_array_equal(read_other(path).points, states.joints)
    with pytest.raises(MediaError, match='does not exist'):
        read_other(tmp_path / 'nothing')


def test_equal_files_of_two_runs_are_told(tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        write_states(tmp_path / name / 'states.npz', states_of({'p0001': standing_at(0.0, 4)}))
        (tmp_path / name / 'metrics.json').write_text(f'{{"frames": "{name}"}}')
    same = identical(tmp_path / 'a', tmp_path / 'b')
    assert same == {'states.npz': True, 'metrics.json': False}
    assert identical(tmp_path / 'a', tmp_path / 'b' / 'states.npz') == {'states.npz': True}
    assert metrics_of(tmp_path / 'b') == {'frames': 'b'}
    (tmp_path / 'b' / 'metrics.json').write_text('[' * 100_000)
    with pytest.raises(MediaError, match='not a JSON file'):
        metrics_of(tmp_path / 'b')
