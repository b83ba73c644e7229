"""Files that a user names. Nothing heavy is imported, so that mistakes are answered at once."""
