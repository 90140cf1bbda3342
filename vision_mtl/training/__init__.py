"""Training: the loop, objectives, the optimiser, checkpoints and tracking."""
