"""One file per `--stage`: the recipe, read from top to bottom."""
