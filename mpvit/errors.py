"""The one exception that stands for a mistake of the user, not of the program."""


class UserError(Exception):
    """Something the user can put right: says what is wrong, where, and what to do, in one line.

    Tools print it without a traceback and exit with status 1 (`tools/_cli.py`).

    Args:
        message: What to print; line breaks become spaces.
        *more: Further mistakes, a line each.
        every_rank: In a distributed run every process that meets it prints it, since it depends on
            the data of the process; otherwise all meet the same one and the first prints it.
    """

    def __init__(self, message: str, *more: str, every_rank: bool = False) -> None:
        super().__init__('\n'.join(' '.join(text.split()) for text in (message, *more)))
        self.every_rank = every_rank
