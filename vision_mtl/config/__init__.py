"""Typed sections of a config, and how a YAML file and overrides become one."""
