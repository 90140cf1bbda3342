"""A finished run as an object, for notebooks and scripts: what it found, what its model does with any images."""
