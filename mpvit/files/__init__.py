"""Files that a user names. Standard library only, so that mistakes are answered at once."""
