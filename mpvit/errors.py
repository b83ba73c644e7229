"""The one exception that stands for a mistake of the user, not of the program."""

import re

# How torch hands on what a worker of a dataloader raised: as the same class, with the whole
# traceback of the worker as its message. What was raised stands after the last class name.
_FROM_WORKER = re.compile(r'Caught UserError in .*\n[\w.]*UserError: (.*)', re.DOTALL)


class UserError(Exception):
    """Something the user can put right: says what is wrong, where, and what to do, in one line.

    Tools print it without a traceback and exit with status 1 (`tools/_cli.py`). One that was raised
    in a worker of a dataloader arrives with the line that it had there.

    Args:
        message: What to print; line breaks become spaces.
        *more: Further mistakes, a line each.
        every_rank: In a distributed run every process that meets it prints it, since it depends on
            the data of the process; otherwise all meet the same one and the first prints it.
    """

    def __init__(self, message: str, *more: str, every_rank: bool = False) -> None:
        wrapped = _FROM_WORKER.match(message)
        texts = (wrapped[1] if wrapped else message, *more)
        super().__init__('\n'.join(' '.join(text.split()) for text in texts))
        self.every_rank = every_rank or wrapped is not None
