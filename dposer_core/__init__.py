"""Whole-body SMPL-X fitting with a diffusion pose prior. Knows nothing of ROS."""

import os

__version__ = '0.1.0'

# The fit solves many small systems. OpenBLAS' threads only wait for each other there: beside other
# processes on 2 cores a frame took 400 to 2600 ms of CPU time with them, 15 to 25 ms without. Read
# when numpy is imported, hence here.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
