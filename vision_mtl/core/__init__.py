"""What every room needs and what needs no room: names, options, draws, shapes, files, run records."""
