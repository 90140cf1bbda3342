"""One file per kind of source; the file's name is the word before the first slash of a source string."""
