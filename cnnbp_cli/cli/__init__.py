"""The command line: one thin file for each command, and one boundary for all errors."""
