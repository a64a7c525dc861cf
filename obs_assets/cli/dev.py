"""``obs dev``, which is ``make dev``: Dagster's UI, schedule and sensors, explorer and receiver, with a quiet terminal.

Dagster prints about a hundred lines a minute. They go into a log file. The terminal shows a line for
each landing pass and each built hour, warnings and errors.
"""

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, NamedTuple

import typer

from obs_assets import embedded, settings
from obs_assets.cli.app import app, counted
from obs_assets.embedded import exports
from obs_assets.embedded.code_location import LOCATION, reload_code
from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.hourly import pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline_files import PipelineFile
from obs_assets.hours import Hour
from obs_assets.settings import Settings
from obs_assets.sources.log import LandingPass, read_pass
from obs_assets.storage.disk import make_private_dir

POLL_S = 2.0
"""Seconds between two looks for new passes and built hours."""

SHOWN = 300
"""Largest number of characters of a warning or an error; the log file has the whole text."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Escape sequences of a terminal, which Dagster prints for colours."""

_GRAVE = re.compile(
    r"^[\d-]+ [\d:]+ \S+ - (?P<source>\S+) - (?P<level>WARNING|ERROR|CRITICAL) - (?P<text>.*)"
)
"""A warning or an error of Dagster, for example ``2026-11-29 21:10:44 +0000 - dagster - ERROR - text``."""

_SERVING = re.compile(r"Serving dagster-webserver on (http://\S+)")

_EXPECTED = re.compile(
    r"is superseded|No cursor for event type|(Beta|Preview|Supersession)Warning"
    r"|configuration value \(dagster.yaml\)|has no partition set"
)
"""Warnings that Dagster prints at every start; they need no action."""


class _Server(NamedTuple):
    """A server of ours that runs beside Dagster.

    Attributes:
        name: its name for the terminal.
        command: words behind ``obs``.
        address: its address.
    """

    name: str
    command: list[str]
    address: str


@app.command()
def dev(
    port: int = typer.Option(
        3000, envvar="PORT", min=1, max=65535, help="Port of the UI, on loopback only."
    ),
) -> None:
    """Start Dagster's UI, schedule and sensors, the explorer and the receiver.

    Starts the embedded servers too, unless the environment names your own.
    """
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
    ending = (
        "Ctrl-C stops it; run `make dev` again to continue. "
        "`obs down` stops the embedded servers."
    )
    for name, value in {**introduction, "Full log": str(log), "": ending}.items():
        typer.echo(f"  {name:<14} {value}")
    for problem in problems.values():
        _say(f"error: {problem}")
    environment.setdefault("OBS_DAGSTER_URL", f"http://127.0.0.1:{port}")
    searched = [file.name for file, hourly in pipelines.items() if hourly.tables()]
    servers = [*_explorer(searched[:1], machine.api.port), *_receiver(pipelines, machine)]
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(_dagster(port, environment, log))
        for server in servers:
            stack.enter_context(_beside(server, environment, log.parent))
        stack.enter_context(_watched(pipelines.values(), port))
        for line in lines:
            if said := condensed(line):
                _say(said)


def condensed(line: str) -> str:
    """The terminal's text for a line of Dagster's; "" for most lines.

    For example ``2026-11-29 21:10:44 +0000 - dagster - ERROR - a run failed`` → ``error: a run failed``.
    """
    plain = _COLOUR.sub("", line).strip()
    if serving := _SERVING.search(plain):
        return f"the UI is ready: {serving[1]}"
    grave = _GRAVE.match(plain)
    if grave is None or _EXPECTED.search(plain):
        return ""
    text = grave["text"]
    if len(text) > SHOWN:
        text = f"{text[:SHOWN]}…"
    return f"{grave['level'].lower()}: {text}"


def landed_line(landing: LandingPass) -> str:
    """A landing pass as a line, for example ``landed 34 events of 2025-12-04-10:00``."""
    events = sum(hour.rows for hour in landing.hours.values())
    dead = sum(landing.dead_letters.values())
    unread = ""
    if dead:
        unread = f", {counted(dead, 'dead letter')} (`obs dead-letters list`)"
    hours = _counted_hours(sorted(landing.hours))
    return f"landed {counted(events, 'event')} of {hours}{unread}"


def _counted_hours(keys: list[str]) -> str:
    if not keys:
        return "no hour"
    if len(keys) == 1:
        return keys[0]
    return f"{len(keys)} hours, {keys[0]} to {keys[-1]}"


def _introduction(pipelines: Sequence[HourlyPipeline], port: int) -> dict[str, str]:
    """Where to put event files, when hours are built, the UI's address."""
    folders = sorted({str(hourly.source.events_dir) for hourly in pipelines})
    lateness = max(
        (hourly.config.allowed_lateness for hourly in pipelines), default=timedelta()
    )
    present = Hour.of(datetime.now(UTC))
    into = " or ".join(folders)
    closing = f"{present.end + lateness:%H:%M}"
    return {
        "Event files": f"put .jsonl files into {into}; they are landed within a minute",
        "Hours": "past hours are built a few minutes after they have landed, "
        f"the present hour, {present} UTC, after {closing}",
        "Dagster's UI": f"http://127.0.0.1:{port} in some 20 seconds",
    }


def _servers(machine: Settings, used: Settings) -> dict[str, str]:
    """Addresses of the servers, and the command that opens an embedded server."""
    assert used.postgres  # noqa: S101 - servers are filled in
    assert used.s3  # noqa: S101
    database = f"{used.postgres.host}:{used.postgres.port}"
    bucket = f"{used.s3.endpoint_url or 'AWS'} {used.s3.bucket}"
    if not machine.postgres:
        database = f"{database}, embedded: `obs psql`"
    if not machine.s3:
        bucket = f"{bucket}, embedded: `obs s3 ls`"
    return {"PostgreSQL": database, "S3": bucket}


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        # Without this option, the port of a `make dev` that has just ended seems to be in use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            problem = f"cannot be used ({error.strerror})"
            if error.errno == errno.EADDRINUSE:
                problem = "is in use"
            sentence = f"Port {port} {problem}: set PORT, for example PORT=3100 make dev"
            raise ConfigurationError(sentence) from None


def _absolute(events_dir: str) -> str:
    if "://" in events_dir:
        return events_dir
    return str(Path(events_dir).absolute())


@contextlib.contextmanager
def _dagster(port: int, environment: Mapping[str, str], log: Path) -> Iterator[Iterator[str]]:
    """Run ``dagster dev``; yields the lines that it prints. They are also appended to the log.

    Ctrl-C, SIGTERM and SIGHUP to this process stop it with all its processes.
    """
    program = str(Path(sys.executable).parent / "dagster")
    command = [program, "dev", "-m", LOCATION, "--host", "127.0.0.1", "--port", str(port)]
    # A background process of a shell ignores SIGINT, and its children inherit that: `dagster dev`
    # would not stop at the SIGINT that is sent to it below.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with (
        log.open("a", encoding="utf-8") as kept,
        subprocess.Popen(  # noqa: S603 - our own program
            command, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace", start_new_session=True,
        ) as dagster,
    ):  # fmt: skip
        assert dagster.stdout  # noqa: S101
        try:
            yield _copied(dagster.stdout, kept)
        except KeyboardInterrupt:
            _say("stopping")
        finally:
            dagster.send_signal(signal.SIGINT)
            # It prints until it ends: a full pipe would stop it from ending.
            for line in _copied(dagster.stdout, kept):
                del line
    _say("stopped; embedded servers go on running until `obs down`")
    if dagster.returncode not in (0, -signal.SIGINT, 130, 1):
        raise ObsError(f"dagster ended with {dagster.returncode}: see {log}")


def _explorer(names: Sequence[str], port: int) -> list[_Server]:
    """``obs serve`` for a pipeline; none if no pipeline has a table."""
    if not names:
        return []
    address = f"http://127.0.0.1:{port}"
    return [_Server("explorer", ["serve", "--pipeline", names[0]], address)]


def _receiver(
    pipelines: Mapping[PipelineFile, HourlyPipeline], machine: Settings
) -> list[_Server]:
    """``obs receive`` for the first pipeline, so that programs can send events while they are tried."""
    for file, hourly in pipelines.items():
        command = ["receive", "--pipeline", file.name]
        if not isinstance(hourly.source.events_dir, Path):
            command += ["--spool", str(machine.data_dir / "spool")]
        return [_Server("receiver", command, machine.receive.address)]
    return []


@contextlib.contextmanager
def _beside(server: _Server, environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    """Run a server within the block; without it, the rest works as well.

    Args:
        server: the server.
        environment: the process's environment.
        folder: folder of its log.
    """
    log = folder / f"{server.command[0]}.log"
    program = str(Path(sys.executable).parent / "obs")
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(  # noqa: S603 - our own program
            [program, *server.command], env=environment, stdin=subprocess.DEVNULL,
            stdout=kept, stderr=kept, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        is_stopping = threading.Event()
        watcher = threading.Thread(
            target=_say_its_end, args=(server.name, process, is_stopping, log)
        )
        watcher.start()
        _say(f"the {server.name} is at {server.address}")
        try:
            yield
        finally:
            is_stopping.set()
            process.terminate()
            watcher.join()


def _say_its_end(
    name: str, process: "subprocess.Popen[bytes]", is_stopping: threading.Event, log: Path
) -> None:
    """Say why a server ended before it was stopped."""
    process.wait()
    if not is_stopping.is_set():
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        reason = next((line for line in reversed(lines) if line), "it printed nothing")
        _say(f"error: the {name} ended: {reason[:SHOWN]}")


def _copied(lines: IO[str], log: IO[str]) -> Iterator[str]:
    """The lines, each after it was written to the log."""
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
        # Landing can fold old passes into another pass between the listing and the reading.
        with contextlib.suppress(OSError, ObsError):
            present = _passes(hourly)
            for path in sorted(present - passes):
                _say(landed_line(read_pass(path)))
            passes = present
            latest = _built(hourly, started)
            changed = sorted(key for key, at in latest.items() if built.get(key) != at)
            if changed:
                _say(f"built {_counted_hours(changed)}")
            built = latest
            landed_first = hourly.first_partition(datetime.now(UTC))
            if landed_first < first and reload_code(f"http://127.0.0.1:{port}"):
                _say(f"the UI shows the hours from {landed_first} on")
                first = landed_first


def _passes(hourly: HourlyPipeline) -> set[Path]:
    return set(hourly.log.passes_dir.glob("*/pass.json"))


def _built(hourly: HourlyPipeline, since: float) -> dict[str, float]:
    """Partition key → time of the receipt of the last destination, for receipts since ``since``.

    Times are seconds since 1970.
    """
    names = ["sampled_events", *hourly.destination_names]
    last = names[-1]
    folder = hourly.store.receipt_dir(last)
    if not folder.is_dir():
        return {}
    built: dict[str, float] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            written_at = entry.stat().st_mtime
            if entry.name.endswith(".json") and written_at >= since:
                built[_key(entry.name)] = written_at
    return built


def _key(name: str) -> str:
    """The partition key of a receipt's file: ``2025120410.json`` → ``2025-12-04-10:00``."""
    stamp = name.removesuffix(".json")
    return Hour(datetime.strptime(stamp, "%Y%m%d%H").replace(tzinfo=UTC)).key


def _say(text: str) -> None:
    typer.echo(f"  {datetime.now(UTC):%H:%M:%S}  {text}")
    sys.stdout.flush()
