"""README's "Your own data", as a newcomer follows it: every command and every snippet of the section."""

import re
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from obs_assets.demo.receiver import Receiver
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.harness import PROJECT, environment, run

SECTION = (
    (PROJECT / "README.md").read_text().split("## Your own data\n", 1)[1].split("\n## ", 1)[0]
)


def blocks(language: str) -> list[str]:
    """The section's blocks of code."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return found


def typed(block: str, events: Path) -> str:
    """The commands of a block, without prompts; your folder of events is the test's."""
    lines = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    return "\n".join(lines).replace("/var/log/agents", str(events))


def follow(block: str, env: dict[str, str], cwd: Path, events: Path) -> str:
    """Type a block into a shell, each command of which must succeed; returns all that was printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", typed(block, events)],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def snippets() -> list[dict[str, Any]]:
    """What the section's YAML sets."""
    return [yaml.safe_load(block) for block in blocks("yaml")]


@pytest.fixture
def own(tmp_path: Path, settings: Settings) -> tuple[Path, dict[str, str]]:
    """A folder after `obs init`, and an environment in which its pipelines are found."""
    env = environment(
        settings, tmp_path / "events", OBS_PIPELINES_DIR=str(tmp_path / "logs" / "pipelines")
    )
    done = run("obs", "init", str(tmp_path / "logs"), env=env)
    assert done.code == 0, done.said
    return tmp_path / "logs", env


def extend(file: Path, snippet: dict[str, Any]) -> None:
    """Put a snippet into a pipeline file as a user would: a list is continued, a block gets more options."""
    values = yaml.safe_load(file.read_text())
    for name, value in snippet.items():
        before = values["attributes"].get(name)
        if isinstance(value, list):
            values["attributes"][name] = [*before, *value]
        else:
            values["attributes"][name] = {**(before or {}), **value}
    file.write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_ones_own_files_to_psql_and_to_a_second_pipeline(
    settings: Settings, postgres_admin: "psycopg.Connection[tuple[object]]", tmp_path: Path
) -> None:
    """Every event is in PostgreSQL, none dropped; the second pipeline has a table and data of its own."""
    events = tmp_path / "agents"
    harness.write_events(events / "a.jsonl", harness.an_hour())
    env = environment(settings, HOME=str(tmp_path))
    env.pop("OBS_DATA_DIR")
    first, second = blocks("console")
    said = follow(first, env, PROJECT, events)
    assert "event_level | count" in said
    landed = len(harness.an_hour())
    assert harness.ask(settings.postgres, "SELECT count(*), sum(weight) FROM events") == [
        (landed, landed)
    ]
    own_bin = {**env, "PATH": f"{harness.BIN}:{env['PATH']}", "OBS_EVENTS_DIR": str(events)}
    follow(second, own_bin, tmp_path / "logs", events)
    assert harness.ask(settings.postgres, "SELECT count(*) FROM audit") == [(landed,)]
    assert {path.name for path in (tmp_path / "logs" / ".obs" / "pipelines").iterdir()} == {
        "pipeline",
        "audit",
    }


@pytest.mark.slow
def test_each_snippet_is_right_where_it_is_put(own: tuple[Path, dict[str, str]]) -> None:
    """`obs validate` takes the file with each of them, and the new pattern is found."""
    folder, env = own
    file = folder / "pipelines" / "events" / "defs.yaml"
    for snippet in snippets():
        extend(file, snippet)
    done = run("obs", "validate", "--offline", env=env)
    assert (done.code, done.out.count("✓")) == (0, 1), done.said
    (some := folder / "some.jsonl").write_text('{"message": "order of CUST-123456"}\n')
    done = run("obs", "redact", str(some), env=env)
    assert "123456" not in done.out
    assert "order of" in done.out


@pytest.mark.slow
def test_the_webhook_of_the_snippet_is_told_of_errors(
    own: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """An hour with failures is built, and the address gets them."""
    folder, env = own
    (webhook,) = [snippet for snippet in snippets() if "destinations" in snippet]
    extend(folder / "pipelines" / "events" / "defs.yaml", webhook)
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    with Receiver() as receiver:
        env = {**env, "WEBHOOK_URL": receiver.url}
        for command in (["obs", "land"], ["obs", "build", "2025-12-04-10:00"]):
            done = run(*command, env=env, cwd=folder)
            assert done.code == 0, done.said
        assert receiver.requests


@pytest.mark.slow
def test_init_overwrites_nothing(tmp_path: Path, settings: Settings) -> None:
    """The second pipeline has its own prefix, a name that assets cannot have is refused, files stay as they are."""
    env = environment(settings)
    folder = tmp_path / "logs"
    (folder / "pipelines").mkdir(parents=True)
    (folder / "README.md").write_text("mine")
    assert run("obs", "init", folder, env=env).code == 0
    file = folder / "pipelines" / "events" / "defs.yaml"
    file.write_text(file.read_text() + "# mine\n")
    again = run("obs", "init", folder, env=env)
    assert again.code == 2
    assert f"{file} exists already" in again.err
    assert file.read_text().endswith("# mine\n")
    assert (folder / "README.md").read_text() == "mine"
    assert run("obs", "init", folder, "--name", "my-shop", env=env).code == 2
    assert run("obs", "init", folder, "--name", "shop", env=env).code == 0
    own = {**env, "OBS_PIPELINES_DIR": str(folder / "pipelines")}
    done = run("obs", "validate", "--offline", env=own)
    assert (done.code, done.out.count("✓")) == (0, 2), done.said
