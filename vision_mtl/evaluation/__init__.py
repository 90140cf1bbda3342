"""Judges every method alike: features, probes, scores with intervals. Knows no pretext and no trainer."""
