"""The PostgreSQL of Debian's package, years older than the one that we bring."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql
from pydantic import SecretStr

from obs_assets.settings import PostgresSettings
from obs_assets_tests.conftest import connect_postgres

BINARIES = Path("/usr/lib/postgresql")


@pytest.fixture(scope="module")
def older() -> Iterator[PostgresSettings]:
    """Debian's server, running on a port of its own."""
    newest = max(BINARIES.iterdir(), key=lambda folder: int(folder.name)) / "bin"
    # PostgreSQL refuses to be root; the package comes with a user
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="older-postgres-"))
    (folder / "password").write_text(password := secrets.token_hex(8))
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(folder / "password", "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    )

    def run(*command: str | Path) -> None:
        subprocess.run([*as_user, *command], check=True, cwd="/", stdout=subprocess.DEVNULL)

    authentication = [
        "-A",
        "scram-sha-256",
        "-U",
        "postgres",
        f"--pwfile={folder / 'password'}",
    ]
    run(newest / "initdb", "-D", data, *authentication, "-E", "UTF8", "--no-sync")
    run(newest / "pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "start")
    try:
        yield PostgresSettings(
            host="127.0.0.1",
            port=port,
            database="postgres",
            user="postgres",
            password=SecretStr(password),
        )
    finally:
        run(newest / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def server(older: PostgresSettings) -> Iterator[PostgresSettings]:
    """A database of this test's own in it."""
    name = f"test-{secrets.token_hex(6)}"
    with connect_postgres(older) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name))
        )
        yield older.model_copy(update={"database": name})
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
