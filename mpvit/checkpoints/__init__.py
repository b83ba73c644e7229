"""Checkpoints: official names to ours, safe reading, and the check that a file fits a model."""
