"""The command `mpvit`: one module a command, found by its name.

A module has a docstring (the help), `add_arguments`, `run`, which gets the arguments by name and
returns the exit status or None, and, where arguments depend on each other, `check`. What is heavy
is imported inside `run`, so that ``--help`` and mistakes are answered at once.
"""
