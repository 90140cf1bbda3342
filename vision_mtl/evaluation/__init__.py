"""Evaluation of any method in the same way: features, probes, scores with intervals. Knows no pretext or trainer."""
