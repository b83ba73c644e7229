"""Layers for float32 on the CPU with fewer passes over memory; `mpvit.models.lean` puts them in."""
