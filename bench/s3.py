#!/usr/bin/env python3
"""Measure the archive: from the redacted frame of one hour to objects in the S3 server, everything archived.

Beside it, in the same run, on the same lines, at the same level: `gzip` alone and the archive's library alone, one
stream on one core; and the archive's own compressor alone, on all cores. Memory is that of the archiving process.

    python bench/s3.py [--events N] [--copies N]

`--copies 10` archives the hour ten times over as one hour: for memory, which must not grow with it.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from place import DATA, HOUR, environment, events_of, fresh_data_dir, out
from rich.table import Table

LEVEL = 6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(globals()[args.step](args.events * args.copies)))
    else:
        archive(args.events, args.copies, args.rounds)


def archive(events: int, copies: int, rounds: int) -> None:
    """Build the frame, then archive it and compress its lines by turns."""
    events_of(events)
    fresh_data_dir()
    child("build", events)
    if copies > 1:
        multiply(copies)
    total = events * copies
    child("write_lines", total)
    steps = ["deliver", "library", "compress", "gzip", "parquet"]
    measured = {step: [child(step, total) for _ in range(rounds)] for step in steps}
    size = (DATA / "lines.jsonl").stat().st_size
    names = {
        "deliver": "frame → .jsonl.gz objects in S3",
        "parquet": "frame → Parquet objects in S3",
        "compress": "its compressor alone, all cores",
        "library": f"zlib-ng at {LEVEL} alone, one core",
        "gzip": f"gzip -{LEVEL} alone, one core",
    }
    table = Table(
        "what",
        "events/s",
        "MB/s",
        "smaller by",
        "peak memory",
        title=f"one hour, {total:,} events",
    )
    rates = {
        step: statistics.median(total / result["seconds"] for result in results)
        for step, results in measured.items()
    }
    for step, rate in rates.items():
        last = measured[step][-1]
        memory = f"{last['peak_mb']:,.0f} MB" if "peak_mb" in last else ""
        table.add_row(
            names[step],
            f"{rate:,.0f}",
            f"{rate * size / total / 1e6:,.0f}",
            f"{1 - last['bytes'] / size:.1%}",
            memory,
        )
    out.print(table)
    out.print(
        f"archiving runs at {rates['deliver'] / rates['gzip']:.2f} of the rate of gzip alone, at "
        f"{rates['deliver'] / rates['library']:.2f} of its library's, one stream each, "
        f"and at {rates['deliver'] / rates['compress']:.2f} of its own compressor alone on all cores"
    )
    (DATA / "lines.jsonl").unlink()


def child(step: str, events: int) -> dict[str, float]:
    """One step in a fresh process."""
    command = [sys.executable, __file__, "--step", step, "--events", str(events)]
    run = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment(events)
    )
    return json.loads(run.stdout.splitlines()[-1])


def hourly():  # type: ignore[no-untyped-def]
    """The default pipeline, but everything is archived."""
    from obs_assets import embedded, settings
    from obs_assets.hourly import pipeline, pipeline_files
    from obs_assets.hourly.hourly_pipeline import HourlyPipeline

    config = pipeline.load(pipeline_files.find().path)
    return HourlyPipeline(config, embedded.resolve(settings.load()))


def build(_: int) -> dict[str, float]:
    from obs_assets.hours import parse_hour

    pipeline = hourly()
    pipeline.land()
    for stage in ("raw_events", "enriched_events", "redacted_events"):
        pipeline.build(stage, parse_hour(HOUR))
    return {}


def multiply(copies: int) -> None:
    """The redacted frame several times over, each row with an identity of its own."""
    import duckdb

    path = next((DATA / "obs").glob("pipelines/pipeline/frames/redacted_events/*.parquet"))
    larger = path.with_suffix(".larger")
    with duckdb.connect(
        config={"memory_limit": "4GB", "preserve_insertion_order": True}
    ) as connection:
        connection.execute(
            f"COPY (SELECT f.* REPLACE (md5(row_uid || copy) AS row_uid) FROM range({copies}) r(copy), '{path}' AS f) "
            f"TO '{larger}' (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE 61440)"
        )
    larger.replace(path)


def frame_path() -> Path:
    return next((DATA / "obs").glob("pipelines/pipeline/frames/redacted_events/*.parquet"))


def frame_of(connection):  # type: ignore[no-untyped-def]
    return connection.read_parquet(str(frame_path())).project("*, 1.0::DOUBLE AS weight")


def write_lines(events: int) -> dict[str, float]:
    """The lines that are archived, as a file."""
    from obs_assets.destinations.s3.encode import line_of
    from obs_assets.hours import parse_hour
    from obs_assets.storage.engine import connect

    del events
    with (
        connect(DATA / "obs" / "spill") as connection,
        (DATA / "lines.jsonl").open("wb") as file,
    ):
        for batch in line_of(frame_of(connection), parse_hour(HOUR), "none").to_arrow_reader(
            2048
        ):
            file.writelines(line.encode() for line in batch.column(0).to_pylist())
    return {}


def deliver(events: int) -> dict[str, float]:
    return _deliver(events, {})


def parquet(events: int) -> dict[str, float]:
    return _deliver(events, {"format": "parquet"})


def _deliver(events: int, options: dict[str, str]) -> dict[str, float]:
    from obs_assets.destinations.base import Offer
    from obs_assets.destinations.s3 import S3Config, S3Destination
    from obs_assets.hours import parse_hour
    from obs_assets.receipts import InputVersion
    from obs_assets.storage.engine import connect_to_stream

    prefix = f"bench/{time.time_ns()}"
    destination = S3Destination(
        S3Config(prefix=prefix, compression_level=LEVEL, **options), hourly().s3
    )
    with connect_to_stream(
        DATA / "obs" / "spill", frame_path()
    ) as connection:  # as `HourlyPipeline` does
        began = time.perf_counter()
        offer = Offer(
            frame_of(connection), parse_hour(HOUR), InputVersion(1, "", ""), events, ""
        )
        delivery = destination.deliver(offer)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "bytes": delivery.size_bytes, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Of this program: ru_maxrss would count whatever its parent had held when it was started."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def compress(_: int) -> dict[str, float]:
    """The archive's compressor on lines that are there already."""
    from concurrent.futures import ThreadPoolExecutor

    from obs_assets.destinations.s3.encode import BLOCK, THREADS, Gzip

    sizes: list[int] = []
    began = time.perf_counter()
    with (DATA / "lines.jsonl").open("rb") as file, ThreadPoolExecutor(THREADS) as pool:
        compressor = Gzip(LEVEL, lambda stored: sizes.append(len(stored)), pool)
        for block in iter(lambda: file.read(BLOCK), b""):
            compressor.add(block)
        compressor.finish()
    return {"seconds": time.perf_counter() - began, "bytes": sum(sizes)}


def library(_: int) -> dict[str, float]:
    """The archive's library on the lines, one stream."""
    from zlib_ng import zlib_ng

    size, began = 0, time.perf_counter()
    with (DATA / "lines.jsonl").open("rb") as file:
        compressor = zlib_ng.compressobj(LEVEL, zlib_ng.DEFLATED, 31)
        for block in iter(lambda: file.read(1 << 20), b""):
            size += len(compressor.compress(block))
        size += len(compressor.flush())
    return {"seconds": time.perf_counter() - began, "bytes": size}


def gzip(_: int) -> dict[str, float]:
    began = time.perf_counter()
    with (DATA / "lines.jsonl").open("rb") as file:
        command = ["gzip", "-c", f"-{LEVEL}"]
        with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE) as process:
            assert process.stdout
            size = sum(len(block) for block in iter(lambda: process.stdout.read(1 << 20), b""))
    return {"seconds": time.perf_counter() - began, "bytes": size}


if __name__ == "__main__":
    main()
