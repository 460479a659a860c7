"""What a pose prior is good for, one optimisation for all priors: Algorithm 1 of the paper.

`optimise.py` runs the stages; `prior_term.py` makes a term of the diffusion prior or a competitor;
`completion.py`, `solvers.py`, `modes.py`, `motion.py`, `motion_rollout.py`,
`inverse_kinematics.py`, `mesh_recovery.py` and `face_reconstruction.py` are the tasks. A task's
protocol is a frozen dataclass; where the paper and its released code differ, both are named.
"""
