"""What is promised of PostgreSQL holds on an older server too: the promises are collected here again."""

import pytest

from obs_assets.settings import PostgresSettings
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.destinations.conftest import duck  # noqa: F401
from obs_assets_tests.destinations.test_extended_tables import *  # noqa: F403
from obs_assets_tests.destinations.test_leaves import *  # noqa: F403
from obs_assets_tests.destinations.test_postgres import *  # noqa: F403
from obs_assets_tests.system.older import older, server  # noqa: F401 - in the place of the server that we bring

pytestmark = pytest.mark.system


def test_the_server_is_older(server: PostgresSettings) -> None:  # noqa: F811
    """The tests of this module prove nothing on the version that we bring."""
    with connect_postgres(server) as connection:
        assert connection.info.server_version < 180000
