"""Arrays or records in, matplotlib figures out. Nothing here computes a result or opens a window."""
