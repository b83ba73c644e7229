"""Datasets and their files."""
