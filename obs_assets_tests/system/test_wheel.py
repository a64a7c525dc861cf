"""A wheel in an empty environment, with no source tree beside it: what somebody gets who installs the package."""

import contextlib
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from obs_assets.hours import Hour
from obs_assets_tests import harness
from obs_assets_tests.harness import BIN, PROJECT
from obs_assets_tests.system.test_deployment import (
    EXAMPLES,
    UNITS,
    command_of,
    free_port,
    healthy,
    loaded,
    running,
    until,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

CODE = ("-m", "obs_assets.definitions")


@dataclass(frozen=True)
class Installation:
    """An environment that holds the wheel and what it needs, in the versions of requirements.lock."""

    programs: Path

    def environment(self, folder: Path) -> dict[str, str]:
        """The environment of a user who works in a folder and has set nothing but Dagster's home."""
        home = folder / "dagster"
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / "dagster.yaml", home)
        path = f"{self.programs}:{os.defpath}"
        return {
            "PATH": path,
            "HOME": str(folder),
            "DAGSTER_HOME": str(home),
            "LC_ALL": "C.UTF-8",
        }

    def run(self, *command: str, env: dict[str, str], cwd: Path, timeout_s: float = 600) -> str:
        """Run one of its programs to its end, which must be a good one; returns all that it printed."""
        done = subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel, built from a copy of the tree and installed into a new environment."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        PROJECT / "obs_assets",
        folder / "tree" / "obs_assets",
        ignore=shutil.ignore_patterns("*.pyc"),
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder / "tree")
    uv, python = str(BIN / "uv"), str(folder / "venv" / "bin" / "python")
    for arguments in (
        ["build", "--quiet", "--wheel", "--out-dir", str(folder), str(folder / "tree")],
        ["venv", "--quiet", "--python", str(BIN / "python"), str(folder / "venv")],
    ):
        subprocess.run([uv, *arguments], check=True)
    shutil.rmtree(folder / "tree")
    (wheel,) = folder.glob("*.whl")
    lock = str(PROJECT / "requirements.lock")
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, "--constraint", lock, str(wheel)],
        check=True,
    )
    return Installation(folder / "venv" / "bin")


@pytest.fixture
def place(installation: Installation, tmp_path: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """An environment and a working folder with nothing of the project in it; its servers end with the test."""
    env = installation.environment(tmp_path)
    (work := tmp_path / "work").mkdir()
    yield env, work
    installation.run("obs", "down", env=env, cwd=work)


def test_three_processes_serve_an_installed_wheel(
    installation: Installation, place: tuple[dict[str, str], Path], tmp_path: Path
) -> None:
    """Code server, webserver and daemon load it; an hour is landed, materialized and verified on embedded servers."""
    env, work = place
    where = installation.run(
        "python", "-c", "import obs_assets; print(obs_assets.__file__)", env=env, cwd=work
    )
    assert where.startswith(str(installation.programs.parent))
    assert "successful" in installation.run(
        "dagster", "definitions", "validate", *CODE, env=env, cwd=work
    )

    installation.run("obs", "up", env=env, cwd=work)
    code_port, web_port = free_port(), free_port()
    (work / "workspace.yaml").write_text(
        (EXAMPLES / "workspace.yaml").read_text().replace("4266", code_port)
    )
    ports = {"4266": code_port, "3000": web_port}
    with contextlib.ExitStack() as processes:
        for unit in UNITS:
            command = [ports.get(word, word) for word in command_of(unit)]
            processes.enter_context(running(command, env, work, installation.programs))
        until("the code is loaded", lambda: loaded(web_port))
        until("the daemons are healthy", lambda: healthy(web_port))

    hour = Hour.of(datetime.now(UTC) - timedelta(hours=3))
    harness.write_events(work / ".obs" / "events" / "a.jsonl", harness.an_hour(hour))
    installation.run(
        "dagster", "job", "execute", *CODE, "-j", "land_event_files", env=env, cwd=work
    )
    select = ["--select", "*", "--partition", hour.key]
    installation.run("dagster", "asset", "materialize", *CODE, *select, env=env, cwd=work)
    assert "postgres_events" in installation.run("obs", "verify", hour.key, env=env, cwd=work)


def test_the_demo_of_an_installed_wheel(
    installation: Installation, place: tuple[dict[str, str], Path]
) -> None:
    """It ends well: everything that it checks itself holds."""
    env, work = place
    said = installation.run("python", "-m", "obs_assets.demo", env=env, cwd=work)
    assert "0 of " in said


def test_the_explorer_of_an_installed_wheel(
    installation: Installation, place: tuple[dict[str, str], Path]
) -> None:
    """`obs serve` serves every file of the page, byte by byte those of the source tree."""
    env, work = place
    port = free_port()
    folder = PROJECT / "obs_assets" / "explorer"
    files = [path for path in folder.rglob("*") if path.is_file()]
    with running(["obs", "serve", "--port", port], env, work, installation.programs):
        address = f"http://127.0.0.1:{port}"
        until("the server answers", lambda: _read(f"{address}/healthz") != b"")
        for path in files:
            assert _read(f"{address}/{path.relative_to(folder)}") == path.read_bytes(), path
        assert b"Search events" in _read(address)


def _read(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=10) as answered:
        return bytes(answered.read())
