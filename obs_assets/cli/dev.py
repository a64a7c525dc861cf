"""``obs dev``, which is ``make dev``: Dagster's UI, schedule and sensors, with a line for each event.

Dagster prints some hundred lines a minute. They go into a file; the terminal gets each landing pass,
each hour that was built, warnings and errors.
"""

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import typer

from obs_assets import embedded, settings
from obs_assets.cli.app import app
from obs_assets.embedded import exports
from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.hourly import pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.settings import Settings
from obs_assets.sources.log import LandingPass, read_pass
from obs_assets.storage.disk import make_private_dir

LOCATION = "obs_assets.definitions"
_RELOAD = """
mutation Reload($location: String!) { reloadRepositoryLocation(repositoryLocationName: $location) { __typename } }"""
POLL_S = 2.0
SHOWN = 300
"""Characters of a warning or an error; all of it is in the log file."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_GRAVE = re.compile(
    r"^[\d-]+ [\d:]+ \S+ - (?P<source>\S+) - (?P<level>WARNING|ERROR|CRITICAL) - (?P<text>.*)"
)
_SERVING = re.compile(r"Serving dagster-webserver on (http://\S+)")

_EXPECTED = re.compile(
    r"is superseded|No cursor for event type|(Beta|Preview|Supersession)Warning|configuration value \(dagster.yaml\)"
)
"""Warnings of Dagster's that are so at every start and ask for nothing."""


@app.command()
def dev(
    port: int = typer.Option(
        3000, envvar="PORT", min=1, max=65535, help="Where the UI listens, on loopback only."
    ),
) -> None:
    """Start Dagster's UI, schedule and sensors, on the embedded servers unless the environment names others."""
    _refuse_taken(port)
    machine = settings.load()
    used = embedded.resolve(machine)
    environment = dict(settings.environment())
    environment |= exports.for_dagster(machine.data_dir, environment)
    if not environment.get("OBS_EVENTS_DIR"):
        environment["OBS_EVENTS_DIR"] = str(make_private_dir(machine.data_dir / "events"))
    environment["OBS_EVENTS_DIR"] = _absolute(environment["OBS_EVENTS_DIR"])
    pipelines, problems = pipeline_files.open_all(
        pipeline_files.list_files(environment), environment
    )
    log = make_private_dir(machine.data_dir / "logs") / "dev.log"
    introduction = {**_introduction(list(pipelines.values()), port), **_servers(machine, used)}
    ending = "Ctrl-C stops it; run `make dev` again to continue. `obs down` stops the embedded servers."
    for name, value in {**introduction, "Full log": str(log), "": ending}.items():
        typer.echo(f"  {name:<14} {value}")
    for problem in problems.values():
        _say(f"error: {problem}")
    with _dagster(port, environment, log) as lines, _watched(pipelines.values(), port):
        for line in lines:
            if said := condensed(line):
                _say(said)


def condensed(line: str) -> str:
    """The terminal's text for a line that Dagster prints; empty for most lines."""
    plain = _COLOUR.sub("", line).strip()
    if serving := _SERVING.search(plain):
        return f"the UI is ready: {serving[1]}"
    grave = _GRAVE.match(plain)
    if grave is None or _EXPECTED.search(plain):
        return ""
    text = grave["text"]
    return f"{grave['level'].lower()}: {text if len(text) <= SHOWN else text[:SHOWN] + '…'}"


def landed_line(landing: LandingPass) -> str:
    """A landing pass as one line."""
    events = sum(hour.rows for hour in landing.hours.values())
    dead = sum(landing.dead_letters.values())
    unread = f", {dead:,} dead letters (`obs dead-letters list`)" if dead else ""
    return f"landed {events:,} events of {_counted_hours(sorted(landing.hours))}{unread}"


def _counted_hours(keys: list[str]) -> str:
    if len(keys) == 1:
        return keys[0]
    return f"{len(keys)} hours, {keys[0]} to {keys[-1]}" if keys else "no hour"


def _introduction(pipelines: Sequence[HourlyPipeline], port: int) -> dict[str, str]:
    """Where files go, and when something is to be seen."""
    folders = sorted({str(hourly.source.events_dir) for hourly in pipelines})
    lateness = max(
        (hourly.config.allowed_lateness for hourly in pipelines), default=timedelta()
    )
    present = Hour.of(datetime.now(UTC))
    built = f"past hours are built a few minutes after they have landed, the present one, {present} UTC"
    return {
        "Event files": f"put .jsonl files into {' or '.join(folders)}; they are landed within a minute",
        "Hours": f"{built}, after {present.end + lateness:%H:%M}",
        "Dagster's UI": f"http://127.0.0.1:{port} in some 20 seconds",
    }


def _servers(machine: Settings, used: Settings) -> dict[str, str]:
    """Where the servers are, and the command that asks an embedded one."""
    assert used.postgres  # noqa: S101 - servers are filled in
    assert used.s3  # noqa: S101
    database = f"{used.postgres.host}:{used.postgres.port}"
    bucket = f"{used.s3.endpoint_url or 'AWS'} {used.s3.bucket}"
    return {
        "PostgreSQL": database if machine.postgres else f"{database}, embedded: `obs psql`",
        "S3": bucket if machine.s3 else f"{bucket}, embedded: `obs s3 ls`",
    }


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            problem = "is in use" if in_use else f"cannot be used ({error.strerror})"
            sentence = f"Port {port} {problem}: set PORT, for example PORT=3100 make dev"
            raise ConfigurationError(sentence) from None


def _absolute(events_dir: str) -> str:
    return events_dir if "://" in events_dir else str(Path(events_dir).absolute())


@contextlib.contextmanager
def _dagster(port: int, environment: Mapping[str, str], log: Path) -> Iterator[Iterator[str]]:
    """Run ``dagster dev``; yields the lines that it prints, which are also appended to the log.

    Ctrl-C, and SIGTERM to us, end it; all its processes are gone afterwards.
    """
    program = str(Path(sys.executable).parent / "dagster")
    command = [program, "dev", "-m", LOCATION, "--host", "127.0.0.1", "--port", str(port)]
    # A shell that starts us in the background ignores SIGINT, and dagster would too: then nothing would end it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with (
        log.open("a", encoding="utf-8") as kept,
        subprocess.Popen(  # noqa: S603 - our own program
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace", start_new_session=True,
        ) as dagster,
    ):  # fmt: skip
        assert dagster.stdout  # noqa: S101
        try:
            yield _kept(dagster.stdout, kept)
        except KeyboardInterrupt:
            _say("stopping")
        finally:
            dagster.send_signal(signal.SIGINT)
            for line in _kept(dagster.stdout, kept):
                del line  # it goes on printing until it ends
    if dagster.returncode not in (0, -signal.SIGINT, 130, 1):
        raise ObsError(f"dagster ended with {dagster.returncode}: see {log}")


def _kept(lines: IO[str], log: IO[str]) -> Iterator[str]:
    for line in lines:
        log.write(line)
        log.flush()
        yield line


@contextlib.contextmanager
def _watched(pipelines: Iterable[HourlyPipeline], port: int) -> Iterator[None]:
    """Print each landing pass and each built hour until the block ends."""
    ended = threading.Event()
    watchers = [
        threading.Thread(target=_watch, args=(hourly, ended, port)) for hourly in pipelines
    ]
    for watcher in watchers:
        watcher.start()
    try:
        yield
    finally:
        ended.set()
        for watcher in watchers:
            watcher.join()


def _watch(hourly: HourlyPipeline, ended: threading.Event, port: int) -> None:
    started = time.time()
    first = hourly.first_partition(datetime.now(UTC))
    passes = _passes(hourly)
    built = _built(hourly, started)
    while not ended.wait(POLL_S):
        with contextlib.suppress(
            OSError, ObsError
        ):  # a pass that was folded into another in this moment
            now = _passes(hourly)
            for path in sorted(now - passes):
                _say(landed_line(read_pass(path)))
            passes = now
            latest = _built(hourly, started)
            changed = sorted(key for key, at in latest.items() if built.get(key) != at)
            if changed:
                _say(f"built {_counted_hours(changed)}")
            built = latest
            landed_first = hourly.first_partition(datetime.now(UTC))
            if landed_first < first and reload_code(port):
                _say(f"the UI shows the hours from {landed_first} on")
                first = landed_first


def reload_code(port: int) -> bool:
    """Have Dagster load the code again: its partitions are fixed while code is loaded. False if the UI fails to."""
    body = json.dumps({"query": _RELOAD, "variables": {"location": LOCATION}}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, ValueError), opener.open(request, timeout=60) as answer:
        done = (json.load(answer).get("data") or {}).get("reloadRepositoryLocation", {})
        return bool(done.get("__typename") == "WorkspaceLocationEntry")
    return False


def _passes(hourly: HourlyPipeline) -> set[Path]:
    return set(hourly.log.passes_dir.glob("*/pass.json"))


def _built(hourly: HourlyPipeline, since: float) -> dict[str, float]:
    """When each hour got the receipt of its last destination, of those that did since a moment."""
    last = ([*hourly.destination_names] or ["sampled_events"])[-1]
    folder = hourly.store.receipt_dir(last)
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as found:
        times = {
            entry.name: entry.stat().st_mtime for entry in found if entry.name.endswith(".json")
        }
    return {_key(name): at for name, at in times.items() if at >= since}


def _key(name: str) -> str:
    """The partition key of a receipt's file, ``2025120410.json``."""
    return Hour(
        datetime.strptime(name.removesuffix(".json"), "%Y%m%d%H").replace(tzinfo=UTC)
    ).key


def _say(text: str) -> None:
    typer.echo(f"  {datetime.now(UTC):%H:%M:%S}  {text}")
    sys.stdout.flush()
