"""The one base class of every error that the user can fix.

The command line turns a `UserError` into one message and exit code 2; anything else that escapes
is a defect of the program.
"""


class UserError(Exception):
    """Bad input of any kind: its text names the place and the remedy."""
