"""The deployment that docs/deployment.md describes: its files, and each of its commands, as plain processes."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest
import yaml
from psycopg import sql

from obs_assets.embedded.dagster_home import SETTINGS
from obs_assets.hourly.pipeline_files import PACKAGED_DIR
from obs_assets.hours import Hour
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.harness import BIN, PROJECT, environment

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client  # noqa: F401 - of a fixture

EXAMPLES = PROJECT / "docs" / "examples" / "production"
PAGE = (PROJECT / "docs" / "deployment.md").read_text()
UNITS = ("obs-code", "obs-daemon", "obs-webserver")


def command_of(unit: str) -> list[str]:
    """What a systemd unit starts."""
    found = re.search(
        r"^ExecStart=/opt/obs_assets/bin/(.*)$",
        (EXAMPLES / f"{unit}.service").read_text(),
        re.MULTILINE,
    )
    assert found
    return shlex.split(found[1])


def variables() -> dict[str, str]:
    """The example's environment file, as systemd reads it."""
    lines = (EXAMPLES / "obs_assets.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_page_names_the_commands_of_the_units() -> None:
    """People without systemd type what the units start."""
    for unit in UNITS:
        assert f"`{shlex.join(command_of(unit))}`" in PAGE


def test_the_example_differs_from_the_project_only_in_its_storage() -> None:
    """Limits, monitoring and retries are those that everything else here is tested with."""
    example = yaml.safe_load((EXAMPLES / "dagster.yaml").read_text())
    assert example.pop("storage") == {
        "postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}
    }
    assert example == SETTINGS


def test_only_known_variables_are_named() -> None:
    """Each variable of the file is read by somebody: a typing error would be an unset setting."""
    known = (PROJECT / "obs_assets" / "settings.py").read_text() + (
        PROJECT / "README.md"
    ).read_text()
    own = {"DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    unknown = [
        name for name in variables() if name not in own and not re.search(rf"\b{name}\b", known)
    ]
    assert [name for name in unknown if not name.startswith("POSTGRES_")] == []


@pytest.fixture
def env(
    settings: Settings, postgres_admin: "psycopg.Connection[tuple[object]]", tmp_path: Path
) -> Iterator[dict[str, str]]:
    """The example's environment with a server and a bucket of the test in place of the placeholders."""
    assert settings.postgres
    database = f"{settings.postgres.database}-dagster"
    postgres_admin.execute(
        sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(database))
    )
    (home := tmp_path / "dagster").mkdir()
    shutil.copy(EXAMPLES / "dagster.yaml", home)
    real = environment(settings, tmp_path / "events", DAGSTER_HOME=str(home))
    server = settings.postgres
    password = quote(server.password.get_secret_value() if server.password else "", safe="")
    url = (
        f"postgresql+psycopg2://{server.user}:{password}@{server.host}:{server.port}/{database}"
    )
    filled = {**variables(), **real, "DAGSTER_POSTGRES_URL": url}
    shutil.copytree(PACKAGED_DIR, tmp_path / "pipelines")
    filled["OBS_PIPELINES_DIR"] = str(tmp_path / "pipelines")
    assert "CHANGE_ME" not in "".join(filled.values())
    yield {name: value for name, value in filled.items() if value}
    postgres_admin.execute(
        sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database))
    )


@contextlib.contextmanager
def running(
    command: list[str], env: dict[str, str], cwd: Path, programs: Path = BIN
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of the deployment, ended as systemd ends it; ``programs`` is the folder of the installation's."""
    with (cwd / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(programs / command[0]), *command[1:]],
            env=env,
            cwd=cwd,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def until(what: str, is_so: Callable[[], bool], timeout_s: float = 150) -> None:
    """Wait for something that three processes bring about."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, KeyError, TypeError):
            if is_so():
                return
        time.sleep(0.5)
    pytest.fail(f"in {timeout_s:.0f} s it did not happen: {what}")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def asked(port: str, query: str) -> Any:
    """An answer of the webserver's GraphQL."""
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())["data"]


DAEMONS = "{instance {daemonHealth {allDaemonStatuses {daemonType required healthy}}}}"
LOADS = "SELECT destination FROM obs.hour_loads"
DESTINATIONS = 2  # an archive's ledger is its manifest
LOCATIONS = "{locationStatusesOrError {... on WorkspaceLocationStatusEntries {entries {name loadStatus}}}}"


@pytest.mark.system
@pytest.mark.timeout(600)
def test_three_plain_processes_build_an_hour_by_themselves(
    env: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """What the page says to type once, then the three units' commands: what has landed is built, unasked."""
    hour = Hour.of(datetime.now(UTC) - timedelta(hours=3))
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour(hour))
    once = re.search(r"```console\n(.*?)```", PAGE, re.DOTALL)
    assert once
    for line in once[1].strip().splitlines():
        typed = line.strip().removeprefix("$ ").partition("#")[0]
        done = harness.run(*shlex.split(typed), env=env, cwd=tmp_path)
        assert done.code == 0, f"{typed}: {done.said}"
    landing = ["job", "execute", "-m", "obs_assets.definitions", "-j", "land_event_files"]
    assert harness.run("dagster", *landing, env=env, cwd=tmp_path).code == 0

    code_port, web_port = free_port(), free_port()
    workspace = (EXAMPLES / "workspace.yaml").read_text().replace("4266", code_port)
    (tmp_path / "workspace.yaml").write_text(workspace)
    ports = {"4266": code_port, "3000": web_port}
    commands = [[ports.get(word, word) for word in command_of(unit)] for unit in UNITS]
    with contextlib.ExitStack() as deployment:
        for command in commands:
            deployment.enter_context(running(command, env, tmp_path))
        until("the code is loaded", lambda: loaded(web_port))
        until("the daemons are healthy", lambda: healthy(web_port))
        until(
            "the hour is built",
            lambda: len(harness.ask(settings.postgres, LOADS)) == DESTINATIONS,
        )
    done = harness.run("obs", "verify", hour.key, env=env, cwd=tmp_path)
    assert done.code == 0, done.said


def loaded(port: str) -> bool:
    """Whether the webserver has loaded the code."""
    entries = asked(port, LOCATIONS)["locationStatusesOrError"]["entries"]
    return bool(entries == [{"name": "obs_assets", "loadStatus": "LOADED"}])


def healthy(port: str) -> bool:
    """Whether all daemons that Dagster needs are healthy."""
    daemons = asked(port, DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all(daemon["healthy"] for daemon in daemons if daemon["required"])
