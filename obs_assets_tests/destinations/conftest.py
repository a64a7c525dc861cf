"""What tests of destinations share."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from obs_assets.storage import engine


@pytest.fixture
def duck(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection."""
    with engine.connect(temp_dir=tmp_path / "spill") as connection:
        yield connection
