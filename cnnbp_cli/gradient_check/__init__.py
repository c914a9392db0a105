"""The gradient check: every gradient against a derivative that shares no code with it, and what is wrong with it."""
