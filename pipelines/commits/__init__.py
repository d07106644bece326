"""Exactly once: the store, records of what is done, who owns the folder, the commit, its proof."""
