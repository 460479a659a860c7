"""The demo: a video becomes images, keypoints, states, a recording, pictures and a report.

Each stage is its own process (player, detector, node, recorder) and they talk over DDS only, so
the demo exercises what runs on a robot. `run.py` starts, watches and ends them.
"""
