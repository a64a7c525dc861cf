"""What tests of transforms share."""

from collections.abc import Iterator

import duckdb
import pytest

from obs_assets.storage import engine


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with one thread, for the tests of a module."""
    with engine.connect(tmp_path_factory.mktemp("spill"), threads=1) as connection:
        yield connection
