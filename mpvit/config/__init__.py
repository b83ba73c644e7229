"""Configs: found by name, read, pointed at data, changed by flags."""
