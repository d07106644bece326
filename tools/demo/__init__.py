"""The demo: rerank Python's own documentation offline, then online, and compare. Not shipped."""
