"""Tables of a lake, whose log or metadata says which files are their rows. Reads no rows."""
