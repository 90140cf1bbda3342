"""Procedural pictures, for tasks that no package brings photographs of. Never to be mistaken for photographs."""
