"""A real PostgreSQL and a real S3 server for the whole session; a database and a bucket of its own for every test.

Nothing but loopback can be reached from a test, as far as Python's own sockets go.
"""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import psycopg
import pytest
from botocore.config import Config
from psycopg import sql

from obs_assets import embedded
from obs_assets.settings import PostgresSettings, S3Settings, Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.allow_hosts = config.option.allow_hosts or "127.0.0.1,::1"
    config.option.allow_unix_socket = True


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of servers that live as long as the session."""
    data_dir = tmp_path_factory.mktemp("servers")
    try:
        yield embedded.resolve(Settings(data_dir=data_dir))
    finally:
        embedded.stop(data_dir)
        shutil.rmtree(data_dir)


@pytest.fixture
def settings(
    servers: Settings, postgres_admin: "psycopg.Connection[tuple[object]]", s3_admin: "S3Client", tmp_path: Path
) -> Iterator[Settings]:
    """Settings with a data folder, an empty database and an empty bucket that no other test sees."""
    assert servers.postgres
    assert servers.s3
    name = f"test-{secrets.token_hex(6)}"
    database = sql.Identifier(name)
    # Without fsync, this strategy takes a tenth of the default's time.
    postgres_admin.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(database))
    s3_admin.create_bucket(Bucket=name)
    yield Settings(
        data_dir=tmp_path / "data",
        postgres=servers.postgres.model_copy(update={"database": name}),
        s3=servers.s3.model_copy(update={"bucket": name}),
    )
    postgres_admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))
    s3_admin.delete_bucket(Bucket=name)  # with all that it holds: SeaweedFS allows that


@pytest.fixture(scope="session")
def postgres_admin(servers: Settings) -> Iterator["psycopg.Connection[tuple[object]]"]:
    """A connection to the session's server, outside the tests' databases."""
    assert servers.postgres
    with connect_postgres(servers.postgres) as connection:
        # Tests lose nothing in a power cut; the product never turns this off.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
        yield connection


@pytest.fixture(scope="session")
def s3_admin(servers: Settings) -> Iterator["S3Client"]:
    """A client of the session's S3 server."""
    assert servers.s3
    with contextlib.closing(connect_s3(servers.s3)) as client:
        yield client


def connect_postgres(settings: PostgresSettings) -> "psycopg.Connection[tuple[object]]":
    """A connection in autocommit mode."""
    return psycopg.connect(
        host=settings.host,
        port=settings.port,
        dbname=settings.database,
        user=settings.user,
        password=settings.password and settings.password.get_secret_value(),
        autocommit=True,
    )


def connect_s3(settings: S3Settings) -> "S3Client":
    """A client; close it, since a connection left open fails the session."""
    secret = settings.secret_access_key
    return boto3.client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=secret and secret.get_secret_value(),
        config=Config(proxies={}),
    )
