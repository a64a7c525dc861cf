"""Where a value could have leaked to: everything that a deployment has stored, printed, answered or sent, as bytes."""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from obs_assets_tests import harness
from obs_assets_tests.system.deployment import Deployment

PROTECTED = ("landed", "frames/raw_events", "frames/enriched_events")
"""Below a pipeline's folder: they hold personal data, and say so."""

OWN_PASSWORDS = ("server.json", "s3.json")
"""Files of mode 0600 in which an embedded server's password is kept."""

_TABLES: LiteralString = """
SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"""
_ANSWERS = """
{
  runsOrError { ... on Runs { results { runId jobName runConfigYaml tags { key value } eventConnection { events {
    __typename
    ... on MessageEvent { message }
    ... on ExecutionStepFailureEvent { error { message stack className causes { message stack } } }
    ... on ExecutionStepUpForRetryEvent { error { message stack causes { message stack } } }
    ... on RunFailureEvent { error { message stack causes { message stack } } }
    ... on EngineEvent {
      error { message stack } metadataEntries { label description ... on TextMetadataEntry { text } } }
    ... on MaterializationEvent { metadataEntries {
      label description ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr }
      ... on JsonMetadataEntry { jsonString } } }
  } } } } }
  instance { info }
  assetNodes { assetKey { path } description metadataEntries { label description } tags { key value } }
}"""
"""What the UI's pages ask for."""


def everything(deployment: Deployment, sent: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each place."""
    yield from _files(deployment.logs, deployment.events_dir)
    yield from _tables("Dagster's database", deployment.dsn)
    server = deployment.machine.postgres
    assert server
    password = server.password.get_secret_value() if server.password else ""
    yield from _tables(
        "the events' database",
        psycopg.conninfo.make_conninfo(
            host=server.host, port=server.port, dbname=server.database, user=server.user, password=password
        ),
    )
    for key, body in harness.objects(deployment.machine).items():
        yield f"object {key}", gzip.decompress(body) if key.endswith(".gz") else body
    yield "GraphQL", repr(deployment.graphql(_ANSWERS)).encode()
    yield "the webhook", b"\n".join(sent)
    for command in (["status"], ["dead-letters", "list"], ["dead-letters", "show"], ["alerts", "list"], ["metrics"]):
        yield f"obs {' '.join(command)}", harness.run("obs", *command, env=deployment.env).said.encode()


def _files(folder: Path, events_dir: Path) -> Iterator[tuple[str, bytes]]:
    """Logs, receipts, compute logs, Dagster's home, and the files of the database itself."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        protected = path.is_relative_to(events_dir) or any(
            f"/pipelines/pipeline/{part}/" in f"/{name}" for part in PROTECTED
        )
        if path.is_file() and not protected and path.name not in OWN_PASSWORDS:
            yield name, path.read_bytes()


def _tables(where: str, dsn: str) -> Iterator[tuple[str, bytes]]:
    """All rows of all tables as text; what Dagster has compressed, unpacked."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for schema, table in connection.execute(_TABLES).fetchall():
            rows = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table))).fetchall()
            values = [
                _unpacked(value) if isinstance(value, bytes) else str(value).encode() for row in rows for value in row
            ]
            yield f"{where}, table {table}", b"\n".join(values)


def _unpacked(value: bytes) -> bytes:
    try:
        return zlib.decompress(value)
    except zlib.error:
        return value
