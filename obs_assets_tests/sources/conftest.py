"""A place to land from, for every test its own."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from obs_assets.storage.engine import connect
from obs_assets_tests.sources.place import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty folder of event files, nothing landed yet."""
    return Place(tmp_path)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with one thread, for the tests of a module."""
    with connect(tmp_path_factory.mktemp("spill"), threads=1) as opened:
        yield opened
