"""One file per kind of source; the file's name is the KIND of `KIND/REST`."""
