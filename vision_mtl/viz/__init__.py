"""Matplotlib figures from arrays or records, without a window. Results are computed elsewhere."""
