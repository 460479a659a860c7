"""Training of the pose priors: readers of free motion data, retargeting, and one training loop."""
