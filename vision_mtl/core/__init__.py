"""Code that every package uses and that uses no other package: errors, registry, random draws, files, run folders."""
