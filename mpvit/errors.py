"""The one exception that stands for a mistake of the user, not of the program."""


class UserError(Exception):
    """Something the user can put right: says what is wrong, where, and what to do, in one line.

    Tools print it without a traceback and exit with status 1 (`tools/_cli.py`).
    """
