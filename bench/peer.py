#!/usr/bin/env python3
"""Measure the whole way from event files to a sampled .jsonl.gz, beside Tenzir where it is installed.

Tenzir (PyPI package `tenzir`, C++) runs bench/tenzir.tql and does less: it redacts one field of each event, not every
string, and neither lands nor keeps anything. Its start-up and ours, measured on a hundred events, are subtracted. Runs
are interleaved, medians are printed. Without Tenzir only our own figures.

    python bench/peer.py [--events N] [--runs N] [--tenzir PATH]
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from place import DATA, HERE, HOUR, environment, events_of, out
from rich.table import Table

FEW = 100
STAGES = ("raw_events", "enriched_events", "redacted_events", "sampled_events")
PIPELINE = {
    "enrich": {},
    "redact": {"mode": "mask"},
    "filter": {"drop_levels": ["debug"]},
    "sample": {"success_rate": 0.1, "default_rate": 0.1},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--tenzir",
        default=shutil.which("tenzir", path=f"{HERE.parent / '.venv/bin'}:{os.defpath}"),
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        whole_way(Path(os.environ["OBS_EVENTS_DIR"]))
        return
    peers: dict[str, Callable[[int], float]] = {"obs_assets": ours}
    if args.tenzir:
        peers["tenzir"] = lambda events: tenzirs(args.tenzir, events)
    else:
        out.print("tenzir is not installed (pip install tenzir): no peer to measure beside")
    compare(peers, args.events, args.runs)


def compare(peers: dict[str, Callable[[int], float]], events: int, runs: int) -> None:
    events_of(events)
    events_of(FEW)
    seconds: dict[tuple[str, int], list[float]] = {
        (peer, size): [] for peer in peers for size in (FEW, events)
    }
    for _ in range(runs):
        for (peer, size), measured in seconds.items():
            measured.append(peers[peer](size))
    table = Table(
        "",
        "start-up s",
        "whole s",
        "net s",
        "events/s",
        title=f"JSONL to sampled .jsonl.gz, {events:,} events",
    )
    for peer in peers:
        start_up, whole = (statistics.median(seconds[peer, size]) for size in (FEW, events))
        net = whole - start_up
        table.add_row(
            peer, f"{start_up:.2f}", f"{whole:.2f}", f"{net:.2f}", f"{events / net:,.0f}"
        )
    out.print(table)


def ours(events: int) -> float:
    """Seconds of a process that lands, builds every stage and writes the archive."""
    shutil.rmtree(DATA / "peer", ignore_errors=True)
    env = {**environment(events), "OBS_DATA_DIR": str(DATA / "peer" / "obs")}
    return timed([sys.executable, __file__, "--here"], cwd=HERE, env=env)


def tenzirs(program: str, events: int) -> float:
    """Seconds of Tenzir on the same files."""
    folder = DATA / "tenzir"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "ev1m").symlink_to(events_of(events))
    return timed([program, "-f", str(HERE / "tenzir.tql")], cwd=folder, env=dict(os.environ))


def timed(command: list[str], *, cwd: Path, env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(
        command,
        cwd=cwd,
        env=env,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def whole_way(events_dir: Path) -> None:
    """What the product does with an hour, without its servers: the archive is a folder."""
    from obs_assets import settings
    from obs_assets.hourly import pipeline
    from obs_assets.hourly.hourly_pipeline import HourlyPipeline
    from obs_assets.hours import parse_hour

    archive = {"type": "s3", "bucket": f"file://{DATA / 'peer' / 'archive'}"}
    config = pipeline.parse(
        {"source": {"events_dir": str(events_dir)}, **PIPELINE, "destinations": [archive]}
    )
    hourly, hour = HourlyPipeline(config, settings.load()), parse_hour(HOUR)
    hourly.land()
    for stage in STAGES:
        hourly.build(stage, hour)  # type: ignore[arg-type]
    hourly.deliver("s3_archive", hour)


if __name__ == "__main__":
    main()
