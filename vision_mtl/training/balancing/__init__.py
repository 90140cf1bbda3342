"""Loss balancing: how the losses of several tasks become one gradient on the shared parameters; one method a file."""
