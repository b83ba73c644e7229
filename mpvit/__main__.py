"""``python -m mpvit`` is the command `mpvit`."""

from mpvit.cli._main import main

if __name__ == '__main__':  # the reference imports this module to describe it
    main()
