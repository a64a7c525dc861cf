#!/usr/bin/env python3
"""Take the README's pictures of real pages: ``make demo KEEP=1`` first, then ``python scripts/pictures.py [HOUR]``.

Opens the demo's Dagster instance (``OBS_DATA_DIR``, ``.obs/demo`` by default) in headless Chromium (Debian's package
``chromium``) and writes docs/images/*.png. The hour is the demo's last one. So that a check fails, late events of that
hour have fields that no hour before had; they are landed and the hour is built again, by the commands of the README.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from obs_assets.embedded.dagster_home import dagster_home

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
CHROMIUM = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=20000",
)


def main() -> None:
    os.environ.setdefault("OBS_DATA_DIR", str(ROOT / ".obs" / "demo"))
    os.environ.setdefault("OBS_EVENTS_DIR", f"{os.environ['OBS_DATA_DIR']}/events")
    os.environ.update(dagster_home(Path(os.environ["OBS_DATA_DIR"])))
    hour = sys.argv[1] if len(sys.argv) > 1 else last_hour()
    let_a_check_fail(hour)
    pages = {
        "lineage": (
            "/assets/redacted_events?view=lineage&lineageScope=neighbors&lineageDepth=4",
            "2280,930",
        ),
        "hour": (
            f"/assets/redacted_events?view=partitions&partition={hour.replace(':', '%3A')}",
            "1700,1480",
        ),
        "checks": ("/assets/redacted_events?view=checks&checkDetail=schema_drift", "1600,640"),
    }
    IMAGES.mkdir(parents=True, exist_ok=True)
    with webserver() as address:
        for name, (path, size) in pages.items():
            browse(address + path, f"--window-size={size}", f"--screenshot={IMAGES / name}.png")
            print(IMAGES / f"{name}.png")
    picture_of_the_explorer()


def picture_of_the_explorer() -> None:
    """The explorer on the demo's table, with the newest event of a trace opened."""
    port = free_port()
    command = [program("obs"), "serve", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/healthz", server)
            asked = f"{address}/api/v1/events?q=type:task_failed&limit=1"
            with urllib.request.urlopen(asked, timeout=30) as answered:
                (event,) = json.load(answered)["events"]
            page = f"{address}/?event={event['id']}"
            browse(page, "--window-size=1500,940", f"--screenshot={IMAGES / 'explorer.png'}")
            print(IMAGES / "explorer.png")
        finally:
            server.terminate()


def let_a_check_fail(hour: str) -> None:
    """Land events whose fields are new in an hour, unless that was done before, and build it again."""
    events = Path(os.environ["OBS_EVENTS_DIR"]) / "access-log.jsonl"
    if "canary" in events.read_text():
        return
    event = {
        "type": "task_completed",
        "level": "info",
        "deployment": {"ring": 2, "canary": True},
        "duration_ms": "12",
    }
    times = [f"{hour[:10]}T{hour[11:14]}{minute:02}:30Z" for minute in range(60)]
    with events.open("a") as file:
        file.writelines(json.dumps({"timestamp": at, **event}) + "\n" for at in times)
    module = ("-m", "obs_assets.definitions")
    for command in (
        ("job", "execute", *module, "-j", "land_event_files"),
        ("asset", "materialize", *module, "--select", "*", "--partition", hour),
    ):
        subprocess.run(
            [program("dagster"), *command], cwd=ROOT, check=True, capture_output=True
        )


def program(name: str) -> str:
    """A program of this environment."""
    return str(shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"))


def browse(url: str, *arguments: str) -> str:
    """Open a page in a fresh browser; returns what it prints."""
    with tempfile.TemporaryDirectory() as profile:
        command = ["chromium", *CHROMIUM, f"--user-data-dir={profile}", *arguments, url]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=120
        ).stdout


@contextlib.contextmanager
def webserver() -> Iterator[str]:
    """Dagster's webserver on the present environment's instance; yields its address."""
    port = free_port()
    command = [
        program("dagster-webserver"),
        "-w",
        "workspace.yaml",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/server_info", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(120):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        if server.poll() is not None:
            sys.exit("the server ended; is DAGSTER_HOME a folder of `make demo` or `make dev`?")
        time.sleep(0.5)
    sys.exit(f"the server does not answer at {url}")


def last_hour() -> str:
    """The last hour that has landed and closed."""
    from obs_assets import settings
    from obs_assets.hourly import pipeline, pipeline_files
    from obs_assets.hourly.hourly_pipeline import HourlyPipeline

    hourly = HourlyPipeline(pipeline.load(pipeline_files.find().path), settings.load())
    return max(key for key in hourly.landed().hours if key < hourly.first_open_hour().key)


if __name__ == "__main__":
    main()
