"""The options of a ``postgres`` destination: its table and its server."""

import re
from datetime import datetime
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from obs_assets.destinations.base import DestinationConfig
from obs_assets.destinations.mapping import MappingName
from obs_assets.destinations.postgres import leaves
from obs_assets.hours import Hour
from obs_assets.settings import PostgresSettings

NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,46}$"
"""A name of 47 characters leaves room for ``idx_`` + name + ``_event_level`` in PostgreSQL's 63 bytes.

So the server cuts no derived name, and two derived names are never equal.
"""

# A table whose name could be a leaf, a statistics table or an index of another table is refused.
_DERIVED = re.compile(r"_[hdm]\d{6,10}(_new)?$|_hourly(_workers)?$|^idx_|^receipts$")


class PostgresConfig(DestinationConfig, frozen=True):
    """A table of events in PostgreSQL.

    Attributes:
        type: ``postgres``; ``postgresql`` means the same.
        table_name: name of the table. Its partitions, indexes and the table of hourly statistics
            get names that begin with it.
        schema_name: schema of the table.
        create_table_if_not_exists: ``false`` when an administrator creates the tables with ``obs
            postgres init``. Loads create the partitions of the table in any case.
        mapping: ``none`` makes no view; the others make a view of the table, for example ``events_ecs``,
            whose columns have the names of a schema, see docs/mappings.md.
        pool_size: connections of the search API; a load uses one connection.
        retention_days: days after which ``obs postgres upkeep`` drops a partition of the table;
            null keeps all.
        host: name or address of the server; wins over ``POSTGRES_HOST``.
        port: port of the server; wins over ``POSTGRES_PORT``.
        database: name of the database; wins over ``POSTGRES_DB``.
        user: name of the role that loads; wins over ``POSTGRES_USER``.
        password: password of that role; wins over ``POSTGRES_PASSWORD``. Write ``{{ env.NAME }}``,
            not the password itself.
    """

    type: Literal["postgres", "postgresql"] = "postgres"
    table_name: str = Field("events", pattern=NAME)
    schema_name: str = Field("public", pattern=NAME)
    create_table_if_not_exists: bool = True
    mapping: MappingName = "none"
    pool_size: int = Field(
        10,
        ge=1,
        json_schema_extra={"unit": "connections"},
    )
    retention_days: int | None = Field(None, ge=1, le=36_500, examples=[90])
    host: str | None = Field(None, examples=["db.example.com"])
    port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        examples=[5432],
        json_schema_extra={"unit": "port number"},
    )
    database: str | None = Field(None, examples=["observability"])
    user: str | None = Field(None, examples=["obs_loader"])
    password: SecretStr | None = Field(None, examples=["{{ env.EVENTS_DB_PASSWORD }}"])

    def has_expired(self, hour: Hour, now: datetime) -> bool:
        """Whether ``retention_days`` have passed since the hour's end.

        The rows may stay longer, until the last hour of their leaf has expired.
        """
        days = self.retention_days
        return days is not None and leaves.has_expired(hour.end, now=now, retention_days=days)

    @field_validator("table_name")
    @classmethod
    def _is_nothing_derived(cls, name: str) -> str:
        if _DERIVED.search(name):
            raise ValueError(
                "must not look like the name of a leaf (_d20251204), of statistics (_hourly) or "
                "an index"
            )
        return name


def server_of(config: PostgresConfig, settings: PostgresSettings) -> PostgresSettings:
    """The server of a destination: the machine's settings, replaced by the options that are set."""
    options = {
        name: getattr(config, name) for name in ("host", "port", "database", "user", "password")
    }
    named = {name: value for name, value in options.items() if value is not None}
    return settings.model_copy(update=named)
