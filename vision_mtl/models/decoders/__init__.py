"""Decoders, one file each; `decoder.name` in a config is the name of the file."""
