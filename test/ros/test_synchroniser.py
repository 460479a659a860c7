"""Bringing together what several sources say about one instant."""

import numpy as np

from dposer_ros.synchroniser import Synchroniser

MS = 1_000_000
PERIOD = 33 * MS


def fed(events, sources='abc', slop=0.015, max_wait=0.05):
    """(stamps by source) of every instant given, and the synchroniser.

    Args:
        events: (arrival in ms, source, stamp in ms), in the order of arrival.
        sources: one letter each.
        slop: s.
        max_wait: s.
    """
    synchroniser = Synchroniser(list(sources), slop, max_wait)
    given = []
    for arrival, source, stamp in events:
        given += synchroniser.due(arrival / 1e3)
        given += synchroniser.add(source, int(stamp * MS), None, arrival / 1e3)
    given += synchroniser.due(1e6)
    return [{s: t // MS for s, (t, _) in i.items.items()} for i in given], synchroniser


def frames(count, sources='abc', offsets=(0, 5, 10), latency=(20, 30, 25), start=1000):
    """Every source's frames at 30 Hz, in the order of their arrival."""
    events = [
        (start + 33 * k + offset + late, source, start + 33 * k + offset)
        for k in range(count)
        for source, offset, late in zip(sources, offsets, latency, strict=True)
    ]
    return sorted(events)


def test_frames_of_one_instant_come_together():
    given, synchroniser = fed(frames(10))
    assert given == [
        {'a': 1000 + 33 * k, 'b': 1005 + 33 * k, 'c': 1010 + 33 * k} for k in range(10)
    ]
    assert not synchroniser.dropped


def test_a_complete_instant_does_not_wait():
    synchroniser = Synchroniser('ab', 0.01, 0.05)
    assert not synchroniser.add('a', 5 * MS, 'x', 1.0)
    (instant,) = synchroniser.add('b', 7 * MS, 'y', 1.0)
    assert instant.stamp_ns == 6 * MS and instant.items == {'a': (5 * MS, 'x'), 'b': (7 * MS, 'y')}


def test_a_lost_frame_costs_its_own_source_only():
    events = [e for e in frames(10) if e[1:] != ('b', 1005 + 33 * 4)]
    given, _ = fed(events)
    assert len(given) == 10
    assert [sorted(instant) for instant in given] == [['a', 'b', 'c']] * 4 + [['a', 'c']] + [
        ['a', 'b', 'c']
    ] * 5


def test_a_source_that_dies_is_waited_for_no_more():
    """For half a second it is waited for, 50 ms each time; then the others alone are complete."""
    synchroniser = Synchroniser('abc', 0.015, 0.05)
    waits = []
    for arrival, source, stamp in frames(60):
        if source == 'c' and stamp > 1500:
            continue
        now = arrival / 1e3
        ready = synchroniser.due(now) + synchroniser.add(source, stamp * MS, None, now)
        waits += [(instant.stamp_ns // MS, now - instant.arrived) for instant in ready]
    assert len(waits) >= 58
    after = [wait for stamp, wait in waits if stamp > 2150]
    assert max(after) < 0.02 < max(wait for _, wait in waits) < 0.09
    assert synchroniser.silent(3.0) == ['c']


def test_a_source_that_never_spoke_is_not_waited_for():
    given, synchroniser = fed([e for e in frames(5) if e[1] != 'c'])
    assert [sorted(instant) for instant in given] == [['a', 'b']] * 5
    assert 'c' in synchroniser.silent(1.6)


def test_sources_faster_than_the_slop_lose_nothing():
    """200 Hz with 15 ms of slop: what belongs together still does, as the stamps are the same."""
    stamps = [1000 + 5 * k for k in range(50)]
    events = [(t + late, s, t) for t in stamps for s, late in (('a', 1), ('b', 2))]
    given, synchroniser = fed(events, 'ab')
    assert given == [{'a': t, 'b': t} for t in stamps] and not synchroniser.dropped


def test_a_frame_behind_its_instant_is_counted():
    events = [*frames(3), (1500, 'b', 1005)]
    given, synchroniser = fed(events)
    assert len(given) == 3 and synchroniser.dropped == {'b': 1}


def test_after_time_went_back_the_new_frames_come_and_the_old_ones_are_forgotten():
    """A bag in a loop: ten seconds back, as of the next message."""
    waiting = (11_400, 'a', 11_340)
    again = [(arrival + 10_400, source, stamp) for arrival, source, stamp in frames(5)]
    given, synchroniser = fed([*frames(10, start=11_000), waiting, *again])
    assert synchroniser.jumps == 1
    assert given[-5:] == [
        {'a': 1000 + 33 * k, 'b': 1005 + 33 * k, 'c': 1010 + 33 * k} for k in range(5)
    ]
    assert {'a': 11_340} not in given


def test_instants_come_in_order_and_few_wait_whatever_arrives():
    """Shuffled, repeated and lost frames of three sources: stamps rise, nothing piles up."""
    rng = np.random.default_rng(0)
    events = [e for e in frames(300) if rng.random() > 0.2]
    events = sorted((arrival + rng.uniform(0, 60), s, t) for arrival, s, t in events)
    synchroniser = Synchroniser('abc', 0.015, 0.05)
    stamps = []
    for arrival, source, stamp in events:
        ready = synchroniser.due(arrival / 1e3)
        ready += synchroniser.add(source, stamp * MS, None, arrival / 1e3)
        stamps += [instant.stamp_ns for instant in ready]
        assert len(synchroniser._pending) <= 17
    assert (np.diff(stamps) > 0).all()
    assert len(stamps) > 280
