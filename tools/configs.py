"""List the configs that come with the project: python tools/configs.py [NAME]."""

from _command import run

run(__file__)
