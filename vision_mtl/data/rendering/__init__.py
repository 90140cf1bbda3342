"""Procedurally drawn images, for tasks without photographs in an installed package. They are not photographs."""
