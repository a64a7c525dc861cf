"""What lies in the archive, opened by readers that know nothing of us."""

import contextlib
import gzip
import hashlib
import json
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pytest

from obs_assets.destinations.s3 import S3Config, S3Destination, encode
from obs_assets.destinations.s3.prices import usd_per_month
from obs_assets.settings import S3Settings, Settings
from obs_assets_tests.conftest import connect_s3
from obs_assets_tests.frames import HOUR, frame_of, offer_of

TOLD: list[dict[str, Any]] = [
    {"id": f"e{n}", "type": "task", "cost_usd": 0.25, "n": n, "text": "é 😀\n\\"}
    for n in range(5000)
]
FORMATS = [
    {},
    {"compression": False},
    {"format": "parquet"},
    {"format": "parquet", "compression": False},
]


@pytest.fixture
def server(settings: Settings) -> S3Settings:
    """A bucket of this test's own."""
    assert settings.s3
    return settings.s3


def archived(
    server: S3Settings, duck: duckdb.DuckDBPyConnection, **options: Any
) -> S3Destination:
    """An archive that holds two hours in several objects each."""
    destination = S3Destination(S3Config(part_size_mb=1, **options), server)
    for hour in (HOUR, HOUR.next):
        told = [{**event, "text": event["text"] * 30} for event in TOLD]
        destination.deliver(offer_of(frame_of(duck, told, hour, weight=2.0), hour))
    return destination


def fetched(server: S3Settings, folder: Path) -> Path:
    """The whole bucket as files."""
    with contextlib.closing(connect_s3(server)) as client:
        for stored in client.list_objects_v2(Bucket=server.bucket)["Contents"]:
            path = folder / stored["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(
                client.get_object(Bucket=server.bucket, Key=stored["Key"])["Body"].read()
            )
    return folder


@pytest.mark.slow
def test_zcat_and_json_tool_read_every_line(
    server: S3Settings, duck: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """``zcat | python -m json.tool --json-lines`` takes each line as JSON."""
    archived(server, duck)
    paths = sorted(fetched(server, tmp_path).glob("cortex-events/**/*-2025120410*.jsonl.gz"))
    assert len(paths) > 1
    unpacked = subprocess.run(["zcat", *map(str, paths)], check=True, stdout=subprocess.PIPE)
    tool = [sys.executable, "-m", "json.tool", "--json-lines", "--compact", "--no-ensure-ascii"]
    told = subprocess.run(tool, input=unpacked.stdout, check=True, stdout=subprocess.PIPE)
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert sorted(line["n"] for line in lines) == list(range(len(TOLD)))
    assert {line["_obs"]["weight"] for line in lines} == {2.0}


@pytest.mark.slow
@pytest.mark.parametrize("options", FORMATS, ids=str)
def test_duckdb_reads_every_format_and_finds_the_hours_in_the_folders(
    server: S3Settings, duck: duckdb.DuckDBPyConnection, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Hive partitions, numbered objects and all."""
    suffix = archived(server, duck, **options).config.suffix
    files = f"{fetched(server, tmp_path)}/cortex-events/year=*/**/*{suffix}"
    read = "read_parquet" if suffix == ".parquet" else "read_json"
    found = duck.sql(
        f"FROM {read}('{files}', hive_partitioning=true, hive_types_autocast=false)"
    )
    number = "(event->>'n')::INT" if suffix == ".parquet" else "n"
    weight = "weight" if suffix == ".parquet" else "_obs.weight"
    counts = found.aggregate(f"year, month, day, hour, count(*), sum({number}), sum({weight})")
    total = sum(range(len(TOLD)))
    assert sorted(counts.fetchall()) == [
        ("2025", "12", "04", hour, len(TOLD), total, 2.0 * len(TOLD)) for hour in ("10", "11")
    ]


@pytest.mark.slow
def test_pyarrow_reads_parquet_from_the_bucket(
    server: S3Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Arrow's own S3 client opens the archive as one partitioned dataset, with typed columns."""
    archived(server, duck, format="parquet")
    assert server.secret_access_key
    assert server.endpoint_url
    filesystem = pyarrow.fs.S3FileSystem(
        access_key=server.access_key_id,
        secret_key=server.secret_access_key.get_secret_value(),
        endpoint_override=server.endpoint_url.removeprefix("http://"),
        scheme="http",
        region=server.region,
    )
    dataset = pyarrow.dataset.dataset(
        f"{server.bucket}/cortex-events",
        filesystem=filesystem,
        format="parquet",
        partitioning="hive",
        exclude_invalid_files=True,
    )
    table = dataset.to_table(filter=pyarrow.dataset.field("hour") == 10)
    assert table.num_rows == len(TOLD)
    assert table.schema.field("event_time").type == pa.timestamp("us", "UTC")
    assert table.schema.field("weight").type == pa.float64()
    assert sorted(table["event_id"].to_pylist())[:2] == ["e0", "e1"]


@pytest.mark.slow
@pytest.mark.parametrize("options", FORMATS, ids=str)
def test_every_format_is_the_same_bytes_and_comes_back(
    server: S3Settings,
    duck: duckdb.DuckDBPyConnection,
    options: dict[str, Any],
) -> None:
    """Neither threads nor batches show; what is read back is what was offered; a rebuild uploads nothing."""
    frame = frame_of(duck, TOLD)
    config = S3Config(part_size_mb=1, **options)

    def digests(**sizes: int) -> list[str]:
        return [
            packed.sha256
            for packed in encode.pack(frame, HOUR, config, **sizes)
            if not packed.file.close()
        ]

    first = digests()
    duck.execute("SET threads = 1")
    assert digests(batch_rows=77) == first
    destination = S3Destination(config, server)
    offer = offer_of(frame)
    assert destination.deliver(offer).written == len(TOLD)
    assert destination.deliver(offer_of(frame, rebuild=True)).written == 0
    assert sorted(destination.read_back(duck, HOUR).fetchall()) == sorted(
        frame.project("row_uid, event").fetchall()
    )


def test_gzip_has_the_bytes_that_it_had() -> None:
    """A change of the compressor is noticed: it would upload every hour anew at its next rebuild."""
    text = b"".join(
        b'{"n":%d,"text":"%s"}\n' % (n, hashlib.sha256(b"%d" % n).hexdigest().encode())
        for n in range(40_000)
    )
    stored: list[bytes] = []
    with ThreadPoolExecutor(2) as pool:
        compressor = encode.Gzip(6, stored.append, pool)
        for start in range(0, len(text), encode.BLOCK):
            compressor.add(text[start : start + encode.BLOCK])
        compressor.finish()
    assert gzip.decompress(b"".join(stored)) == text
    member = zlib.decompressobj(31)
    assert member.decompress(b"".join(stored)) == text
    assert member.eof
    assert (
        member.unused_data == b""
    )  # one member: readers that stop after the first miss nothing
    assert (
        hashlib.sha256(b"".join(stored)).hexdigest()
        == "89d853f9c91bfad9abaa80dfc82a5e3703e95bd6cdee7822ccfa771d2ac1e604"
    )


@pytest.mark.slow
def test_levels_mean_what_they_say(duck: duckdb.DuckDBPyConnection) -> None:
    """From 1 to 9 objects do not grow, and both ends differ."""
    frame = frame_of(
        duck,
        [
            {"n": n, "text": f"worker {n % 7} finished task {n * n} in {n % 997} ms"}
            for n in range(3000)
        ],
    )
    sizes = []
    for level in range(1, 10):
        (packed,) = encode.pack(frame, HOUR, S3Config(compression_level=level))
        packed.file.close()
        sizes.append(packed.size_bytes)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) >= 6


@pytest.mark.slow
def test_keeping_an_hour_has_a_price(
    server: S3Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """A GiB costs its list price; small objects are charged for 128 KiB where the class says so; figures are shown."""
    assert usd_per_month([2**30], "STANDARD") == pytest.approx(0.023)
    assert usd_per_month([1] * 8192, "STANDARD_IA") == pytest.approx(0.0125)
    assert usd_per_month([1], "DEEP_ARCHIVE") > usd_per_month([1], "STANDARD")
    stats = S3Destination(S3Config(), server).deliver(offer_of(frame_of(duck, TOLD))).stats
    assert stats["USD per month in STANDARD"] == pytest.approx(
        usd_per_month([stats["total_bytes_uploaded"]], "STANDARD"), abs=1e-8
    )  # type: ignore[list-item]
    assert (stats["total_events_uploaded"], stats["average_events_per_batch"]) == (
        len(TOLD),
        len(TOLD),
    )
