"""A real PostgreSQL and a real S3 server for all workers; a database and a bucket of its own for every test.

Nothing but loopback can be reached from a test, as far as Python's own sockets go.
"""

import contextlib
import os
import resource
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import hypothesis
import psutil
import psycopg
import pytest
from botocore.config import Config
from psycopg import sql

from obs_assets import embedded
from obs_assets.delivery.breaker import Breakers
from obs_assets.settings import PostgresSettings, S3Settings, Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SERVERS_VARIABLE = "PYTEST_OBS_SERVERS"
"""Names the folder above the servers' data. The first process sets it, and the workers inherit it."""

MEMORY_DISK = Path("/dev/shm")
"""A database is made there in a tenth of the processor time that a disk takes: 300 files are copied."""

MEMORY_NEEDED = 4 << 30
"""Bytes that must be free in memory; a container has 64 MB by default, and its tests use the disk."""

QUICK_S = 1.0
"""Processor seconds; a test that takes more is to be marked ``slow``, or `make test-fast` is fast no longer."""

hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")
"""The same examples in each run, so that a red test is the change's own; `make soak` looks for new ones."""

BEGAN_S = pytest.StashKey[float]()


@pytest.fixture(autouse=True)
def _no_remembered_credentials() -> None:
    """boto3 remembers the first credentials of a process, which may be those of another test."""
    boto3.DEFAULT_SESSION = None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.allow_hosts = config.option.allow_hosts or "127.0.0.1,::1"
    config.option.allow_unix_socket = True
    if not is_worker(config):
        folder = servers_folder()
        remove_servers_of_killed_sessions(folder)
        own = tempfile.mkdtemp(prefix=f"obs-tests-{os.getpid()}-", dir=folder)
        os.environ[SERVERS_VARIABLE] = own  # for its owner alone, and so is all below it


def pytest_unconfigure(config: pytest.Config) -> None:
    if not is_worker(config):
        remove_servers(Path(os.environ.pop(SERVERS_VARIABLE)))


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for another one, by pytest-xdist."""
    return hasattr(config, "workerinput")


def servers_folder() -> Path:
    """The folder above the servers' own: in memory if that has room."""
    if os.access(MEMORY_DISK, os.W_OK) and shutil.disk_usage(MEMORY_DISK).free >= MEMORY_NEEDED:
        return MEMORY_DISK
    return Path(tempfile.gettempdir())


def remove_servers_of_killed_sessions(folder: Path) -> None:
    """A session that was killed leaves servers that run, and their files in memory."""
    for left in folder.glob("obs-tests-*"):
        session_pid = int(left.name.split("-")[2])
        if left.owner() == Path("/proc/self").owner() and not psutil.pid_exists(session_pid):
            remove_servers(left)


def remove_servers(folder: Path) -> None:
    """End the servers of a session and remove its folder."""
    embedded.stop(folder / "data")
    shutil.rmtree(folder, ignore_errors=True)  # another session may remove it at the same time


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[BEGAN_S] = processor_s()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.when == "teardown":
        item.user_properties.append(("processor_s", processor_s() - item.stash[BEGAN_S]))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """In `make test-fast`, list the tests that should be marked ``slow``: a line in the report, no failure."""
    if "not slow" not in config.option.markexpr:
        return
    for reports in terminalreporter.stats.values():
        for report in reports:
            spent_s = float(dict(getattr(report, "user_properties", ())).get("processor_s", 0))
            if spent_s > QUICK_S:
                terminalreporter.line(
                    f"not marked slow, {spent_s:.1f} s of processor time: {report.nodeid}"
                )


def processor_s() -> float:
    """Processor seconds of this process and of its children that have ended; the servers' are not among them."""
    spent = [
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


@pytest.fixture(scope="session")
def servers() -> Settings:
    """Settings of servers that live as long as the session; the workers share them."""
    return embedded.resolve(Settings(data_dir=Path(os.environ[SERVERS_VARIABLE], "data")))


@pytest.fixture
def settings(
    servers: Settings,
    postgres_admin: "psycopg.Connection[tuple[object]]",
    s3_admin: "S3Client",
    tmp_path: Path,
) -> Iterator[Settings]:
    """Settings with a data folder, an empty database and an empty bucket that no other test sees."""
    assert servers.postgres
    assert servers.s3
    name = f"test-{secrets.token_hex(6)}"
    database = sql.Identifier(name)
    # In memory or without fsync, this strategy takes a tenth of the default's time.
    postgres_admin.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(database))
    s3_admin.create_bucket(Bucket=name)
    yield Settings(
        data_dir=tmp_path / "data",
        postgres=servers.postgres.model_copy(update={"database": name}),
        s3=servers.s3.model_copy(update={"bucket": name}),
    )
    postgres_admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))
    s3_admin.delete_bucket(Bucket=name)  # with all that it holds: SeaweedFS allows that


def breakers_of(server: PostgresSettings) -> Breakers:
    """The breakers of tests that share a database; the folder goes with the session's servers."""
    return Breakers(Path(os.environ[SERVERS_VARIABLE], "breakers", server.database))


@pytest.fixture
def server(settings: Settings) -> PostgresSettings:
    """The PostgreSQL database of `settings`."""
    assert settings.postgres
    return settings.postgres


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
