"""The diffusion prior: SDE, networks, statistics, checkpoints, losses, samplers, live denoiser."""
