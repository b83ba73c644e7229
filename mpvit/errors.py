"""The one exception that stands for a mistake of the user, not of the program."""


class UserError(Exception):
    """Something the user can put right: says what is wrong, where, and what to do, in one line.

    Tools print it without a traceback and exit with status 1 (`tools/_cli.py`).

    Args:
        message: What to print; line breaks become spaces.
    """

    def __init__(self, message: str) -> None:
        super().__init__(' '.join(message.split()))
