"""The explorer: a page on this machine on which an image is damaged by hand, repaired, and shown to every head."""
