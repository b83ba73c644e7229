"""Draw what the queries of a decoder layer look at: CONFIG CHECKPOINT IMAGE --out FILE.png."""

from _command import run

run(__file__)
