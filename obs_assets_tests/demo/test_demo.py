"""`make demo` from outside: the command, its exit code, and figures that agree with one another."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from obs_assets import embedded
from obs_assets.demo.folder import MARK, OWN

COMMAND = [sys.executable, "-m", "obs_assets.demo"]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An empty home, a data folder, and variables that would lead to servers that do not exist."""
    (tmp_path / "home").mkdir()
    data_dir = tmp_path / "demo"
    yield {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "OBS_DATA_DIR": str(data_dir),
        "POSTGRES_HOST": "production.invalid",
        "AWS_S3_BUCKET": "production",
        "HTTP_PROXY": "http://proxy.invalid:1",
    }
    if data_dir.exists():
        embedded.stop(data_dir)


def demo(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        COMMAND, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.slow
def test_the_demo_ends_well_and_its_figures_agree(environment: dict[str, str]) -> None:
    """What landed is kept, filtered or sampled out; the destinations hold the rest; nothing is left running."""
    done = demo(environment)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()

    written = [
        int(figure)
        for figure in next(line for line in lines if line.startswith("all "))
        .replace(",", "")
        .split()[1:]
    ]
    landed, dead, *redacted, filtered, sampled_out, postgres, s3, alerts = written
    assert landed == dead + filtered + sampled_out + postgres
    assert all(count > 0 for count in (*redacted, filtered, sampled_out, s3, alerts))
    assert postgres == s3
    assert dead == 0

    runs = [line.split()[1:] for line in lines if line.startswith(("first ", "second "))]
    assert runs[0] == runs[1]
    assert int(runs[0][0]) == postgres

    assert re.search(rf"Alerts: {alerts} events in {runs[0][-1]} webhook requests", done.stdout)
    assert len([line for line in lines if "cortex-events/year=" in line]) == 9
    assert re.search(r"found 0 of 189 planted values", done.stdout)
    assert f"OBS_DATA_DIR={environment['OBS_DATA_DIR']} make dev" in done.stdout
    assert not any(
        server.running for server in embedded.status(Path(environment["OBS_DATA_DIR"]))
    )

    printed = iter(map(comparable, lines))
    assert (
        next((line for line in readme_print() if comparable(line) not in printed), None) is None
    )


def readme_print() -> list[str]:
    """What README says that the demo prints, without the lines that stand for others."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    block = (
        text.split("What `make demo` prints", 1)[1].split("```text\n", 1)[1].split("```", 1)[0]
    )
    return [line for line in block.splitlines() if not line.strip().startswith("…")]


def comparable(line: str) -> str:
    """A line without what depends on the day, the machine's speed and the place: times, hashes, bytes, folders."""
    changing = (
        r"\d{4}-\d\d-\d\d", r"\d\d:\d\d(:\d\d(\.\d+)?)?", r"\d+\.\d s$", r"\b[0-9a-f]{12}\b", r"[\d,]+ bytes$",
        r"\b(year|month|day|hour)=\d+", r"events-\d{10}", r"(?<=events into ).*",
    )  # fmt: skip
    return re.sub("|".join(changing), "?", line.rstrip())


@pytest.mark.slow
def test_the_demo_fails_when_an_event_is_lost(environment: dict[str, str]) -> None:
    """One event less than was written, on whatever way: exit code 1 and a sentence that names hour and counts."""
    done = subprocess.run(
        [sys.executable, "-c", LOSE_A_LINE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(
        r"demo: .*events landed of \d{4}-.*: (\d+) instead of (\d+)",
        done.stdout.replace("\n", " "),
    )


LOSE_A_LINE = """
import sys
from obs_assets.demo import run, samples
from obs_assets.demo.__main__ import main

def lossy(folder, *arguments):
    planted = samples.write_samples(folder, *arguments)
    lines = (folder / "access-log.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "access-log.jsonl").write_bytes(b"".join(lines[1:]))
    return planted

run.write_samples = lossy
sys.exit(main())
"""


@pytest.mark.slow
def test_an_interrupted_demo_stops_its_servers_and_can_be_run_again(
    environment: dict[str, str],
) -> None:
    """SIGTERM in the middle leaves nothing running, and what it left is known as the demo's own."""
    data_dir = Path(environment["OBS_DATA_DIR"])
    with subprocess.Popen(
        COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("$ dagster"):
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "demo: interrupted" in rest
    assert not any(server.running for server in embedded.status(data_dir))
    assert {path.name for path in data_dir.iterdir()} <= {*OWN, MARK, "demo.lock"}


@pytest.mark.slow
def test_a_folder_of_somebody_elses_is_refused_and_stays(environment: dict[str, str]) -> None:
    """One sentence, exit code 1, nothing added and nothing removed."""
    data_dir = Path(environment["OBS_DATA_DIR"])
    (data_dir / "pipelines").mkdir(parents=True)
    done = demo(environment)
    assert done.returncode == 1
    assert (
        done.stdout
        == f"demo: {data_dir} holds data that the demo did not make: set OBS_DATA_DIR to an empty folder\n"
    )
    assert [path.name for path in data_dir.rglob("*")] == ["pipelines"]


@pytest.mark.slow
def test_event_files_of_somebody_elses_are_refused_and_stay(
    environment: dict[str, str],
) -> None:
    """Who dropped a file of their own beside the demo's does not lose it."""
    events = Path(environment["OBS_DATA_DIR"]) / "events"
    events.mkdir(parents=True)
    (events.parent / MARK).touch()
    (events / "mine.jsonl").write_text("{}\n")
    done = demo(environment)
    assert done.returncode == 1
    assert "mine.jsonl, which the demo did not write" in done.stdout
    assert (events / "mine.jsonl").read_text() == "{}\n"
