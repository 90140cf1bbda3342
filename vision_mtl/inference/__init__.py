"""Repair, embed and predict with a finished run."""
