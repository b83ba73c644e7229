"""Configs: found by name, read, and pointed at data."""
