"""Typed sections of a config, and how a YAML file and overrides become one."""

# options of the command line itself, which no config file holds
COMMAND_OPTIONS = ("stage", "config", "run_dir", "plugins", "print_config", "console", "help", "version")
