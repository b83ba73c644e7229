"""``python -m mpvit`` is the command `mpvit`."""

from mpvit.cli._main import main

main()
