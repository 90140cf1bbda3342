"""The loop, the optimiser, checkpoints and tracking: how a model is fitted, whatever it is fitted to."""
