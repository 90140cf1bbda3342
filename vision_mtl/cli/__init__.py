"""The command line: words in, one stage run in a folder, exit code out."""
