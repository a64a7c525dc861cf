"""Where a value could have leaked to: everything that a deployment has stored, printed, answered or sent, as bytes.

A message may have cut a value short: what is searched for are pieces of it.
"""

import contextlib
import gzip
import secrets
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import LiteralString

import psutil
import psycopg
import re2
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

SECRETS = {
    name: f"CANARY{secrets.token_hex(12)}"
    for name in (
        "WEBHOOK_URL",
        "WEBHOOK_AUTH_TOKEN",
        "WEBHOOK_API_KEY",
        "WEBHOOK_HMAC_SECRET",
        "OBS_HASH_KEY",
    )
}
"""Part of the environment of all three processes."""

# -- what is searched for ----------------------------------------------------------------------------------------------

LONG, NUMBER, SHORT = 12, 10, 8
"""Characters of a piece: of a value of twice as many or more, of one without letters, of another."""


def pieces(value: str) -> set[str]:
    """What shows that this value was there, whole or cut; digits are in every file, so that more of them are needed."""
    size = LONG if len(value) >= 2 * LONG else SHORT if any(map(str.isalpha, value)) else NUMBER
    return {value[start : start + size] for start in range(max(1, len(value) - size + 1))}


def secrets_of(deployment: Deployment) -> list[str]:
    """What its processes know, without the word that all of it begins with."""
    passwords = [
        deployment.env[name] for name in ("POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY")
    ]
    passwords.append(str(psycopg.conninfo.conninfo_to_dict(deployment.dsn)["password"]))
    return [*(value.removeprefix("CANARY") for value in SECRETS.values()), *passwords]


def leaks(places: Mapping[str, bytes], planted: Sequence[str]) -> set[str]:
    """Where a piece of what was planted is; by its number, so that no message shows the value itself."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = 1 << 28
    wanted = {piece: number for number, value in enumerate(planted) for piece in pieces(value)}
    search = re2.compile("|".join(re2.escape(piece) for piece in wanted).encode(), options)
    return {
        f"{wanted[match.group().decode()]}: {name}"
        for name, content in places.items()
        for match in search.finditer(content)
    }


# -- where it is searched for ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def watched_processes() -> Iterator[set[str]]:
    """The arguments of every process that runs meanwhile, as anybody on the machine sees them."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    seen.add("\0".join(process.cmdline()))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()


def everything(deployment: Deployment) -> Iterator[tuple[str, bytes]]:
    """Name and content of each place."""
    yield from stored(deployment)
    for command in (
        ["status"],
        ["dead-letters", "list"],
        ["dead-letters", "show"],
        ["alerts", "list"],
        ["metrics"],
    ):
        yield (
            f"obs {' '.join(command)}",
            harness.run("obs", *command, env=deployment.env).said.encode(),
        )


def stored(deployment: Deployment) -> Iterator[tuple[str, bytes]]:
    """Name and content of each place but what commands say."""
    yield from _files(deployment.logs, deployment.events_dir)
    yield from _tables("Dagster's database", deployment.dsn)
    server = deployment.machine.postgres
    assert server
    password = server.password.get_secret_value() if server.password else ""
    yield from _tables(
        "the events' database",
        psycopg.conninfo.make_conninfo(
            host=server.host,
            port=server.port,
            dbname=server.database,
            user=server.user,
            password=password,
        ),
    )
    for key, body in harness.objects(deployment.machine).items():
        yield f"object {key}", gzip.decompress(body) if key.endswith(".gz") else body
    yield "GraphQL", repr(deployment.graphql_patiently(_ANSWERS)).encode()
    yield "the webhook", b"\n".join(request.body for request in deployment.receiver.requests)


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
            rows = connection.execute(
                sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table))
            ).fetchall()
            values = [
                _unpacked(value) if isinstance(value, bytes) else str(value).encode()
                for row in rows
                for value in row
            ]
            yield f"{where}, table {table}", b"\n".join(values)


def _unpacked(value: bytes) -> bytes:
    try:
        return zlib.decompress(value)
    except zlib.error:
        return value
