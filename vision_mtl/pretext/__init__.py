"""Pretext tasks, one file each: damage an image, learn to undo it. `contract.py` defines the interface."""
