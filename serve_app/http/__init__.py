"""What only HTTP knows: bodies, keys, status codes, paths and pages."""
