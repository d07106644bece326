"""What is read: which files, which columns, which rows, and the pairs in them. Writes nothing."""
