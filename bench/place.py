"""Where benchmarks keep their events, their state and their servers: below ``bench/.data``, made when it is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).parent
DATA = HERE / ".data"
HOUR = "2025-12-04-10:00"
out = Console()


def events_of(events: int, *, files: int | None = None) -> Path:
    """A folder with so many events of one hour."""
    events_dir = DATA / f"events-{events}"
    if not events_dir.exists():
        out.print(f"writing {events:,} events to {events_dir} …")
        command = [sys.executable, HERE / "make_events.py", events_dir, "--events", str(events)]
        if files:
            command += ["--files", str(files)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return events_dir


def environment(events: int) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POSTGRES_", "AWS_", "WEBHOOK_", "OBS_"))
    }
    return {
        **kept,
        "OBS_DATA_DIR": str(DATA / "obs"),
        "OBS_EVENTS_DIR": str(DATA / f"events-{events}"),
    }


def fresh_data_dir() -> None:
    """Forget what has landed and been loaded; the servers' programs and folders are made anew with it."""
    from obs_assets import embedded

    embedded.stop(DATA / "obs")
    shutil.rmtree(DATA / "obs", ignore_errors=True)
    (DATA / "obs").mkdir(parents=True)
