"""A place to land from, for every test its own."""

from pathlib import Path

import pytest

from obs_assets_tests.sources.place import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty folder of event files, nothing landed yet."""
    return Place(tmp_path)
