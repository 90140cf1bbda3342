"""Which damage can be repaired, how well, and against what: measured on images the model was not fitted to."""
