"""The colours of classes and of feature levels, the same in every picture."""

#: Colours that people with any colour vision tell apart (Okabe and Ito, 2008), on light and dark.
CLASSES = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#8a8a3c')
#: The same in another order, with yellow, which is seen on photographs only.
LEVELS = ('#e69f00', '#56b4e9', '#009e73', '#f0e442', '#d55e00', '#cc79a7', '#0072b2')


def class_colour(label: int) -> str:
    """The colour of a class, ``#rrggbb``; of many classes several share one."""
    return CLASSES[label % len(CLASSES)]


def level_colour(index: int) -> str:
    """The colour of a feature level, the finest first, ``#rrggbb``."""
    return LEVELS[index % len(LEVELS)]


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue in [0, 255]."""
    red, green, blue = bytes.fromhex(colour.removeprefix('#'))
    return red, green, blue


def ink_on(colour: str) -> str:
    """Of 'black' and 'white' the one that can be read on a colour."""
    red, green, blue = rgb(colour)
    return 'black' if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else 'white'
