"""PostgreSQL as a destination: each hour is replaced in a transaction. See `destination`."""

from obs_assets.destinations.postgres.config import PostgresConfig, server_of
from obs_assets.destinations.postgres.destination import Health, PostgresDestination
from obs_assets.destinations.postgres.rows import stored_event
from obs_assets.storage.postgres import connect
from obs_assets.storage.postgres_errors import explained

__all__ = [
    "Health",
    "PostgresConfig",
    "PostgresDestination",
    "connect",
    "explained",
    "server_of",
    "stored_event",
]
