"""Skill of every damage on images that the model was not fitted to, and the selection that follows from it."""
