import time

import numpy as np
import pytest
from node_probe import active_node, person, wait_for
from null_fitter import null_model

pytestmark = pytest.mark.ros


def test_every_frame_of_a_steady_stream_is_answered():
    with active_node(null_model) as (_, probe):
        stamps = []
        for _ in range(60):
            stamps.append(probe.send(person()))
            time.sleep(1 / 60)
        wait_for(lambda: len(probe.states()) == 60, what='60 answers')
        answered = [s.header.stamp.sec * 10**9 + s.header.stamp.nanosec for s in probe.states()]
        assert answered == stamps
        totals = [t.total for t in probe.received['/dposer_wholebody/timing']]
        print('ms p50 p99 max', np.percentile(totals, (50, 99, 100)) * 1e3)
