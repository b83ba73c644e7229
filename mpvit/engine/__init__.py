"""Trainings and tests: from a config to weights and numbers, whatever interrupts them."""
