"""YAML text to a validated config, with file, line and column for every complaint."""
