"""The view of a table under the names of a mapping: ``events_ecs`` has the column ``"log.level"``.

A view takes no room and shows every stored hour, so that the mapping can be changed at any time.
"""

from collections.abc import Mapping

from psycopg import sql

from obs_assets.destinations.mapping import MappingName, fields_of
from obs_assets.storage.postgres import Migration

_OF_TABLE: Mapping[str, str] = {
    "event_time": "timestamp",
    "time_unix_ns": "(extract(epoch FROM timestamp) * 1000000000)::BIGINT",
    "message": "coalesce(data->>'message', data->>'msg')",
    "hostname": (
        "coalesce(data->>'hostname', "
        "CASE jsonb_typeof(data->'host') WHEN 'string' THEN data->>'host' END)"
    ),
    "status": "data->>'status'",
}
"""SQL over the table of the values of `mapping.COLUMNS`."""


def view_name(table_name: str, mapping: MappingName) -> str:
    """Name of the view of a table, for example ``events_ecs``."""
    return f"{table_name}_{mapping}"


def view_migration(
    table: sql.Identifier, view: sql.Identifier, mapping: MappingName, name: str
) -> Migration:
    """The migration that makes the view.

    Its columns are the mapped columns, ``row_uid``, ``weight``, ``hour`` and ``data``.
    """
    columns = []
    for path, value in fields_of(mapping):
        # The table of mappings is code, not input.
        expression = sql.SQL(value.sql.format_map(_OF_TABLE))
        column = sql.Identifier(".".join(path))
        columns.append(sql.SQL("{} AS {}").format(expression, column))
    select = sql.SQL(
        "CREATE OR REPLACE VIEW {} AS SELECT {}, row_uid, weight, hour, data FROM {}"
    )
    return Migration(
        f"Make the view {name}: the columns by the names of the mapping {mapping}.",
        select.format(view, sql.SQL(", ").join(columns), table),
    )
