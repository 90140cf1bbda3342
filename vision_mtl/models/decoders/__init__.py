"""One file per decoder; `decoder.name` in a config is the file's name."""
