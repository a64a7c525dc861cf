"""What tests of delivery share."""

from collections.abc import Iterator

import duckdb
import pytest


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection."""
    with duckdb.connect() as connection:
        yield connection
