"""Pytest plugin of `make pictures`: where the test of the playground leaves what it saw."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --pictures FOLDER."""
    parser.addoption("--pictures", type=Path, help="write the playground's pictures into here")
