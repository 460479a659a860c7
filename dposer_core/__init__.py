"""Whole-body SMPL-X fitting with a diffusion pose prior. Knows nothing of ROS."""

__version__ = '0.1.0'
