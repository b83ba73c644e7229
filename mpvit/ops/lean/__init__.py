"""Layers for the CPU with fewer passes over memory; `mpvit.models.lean` puts them in."""
