"""S3 as a destination, on a real server."""

import contextlib
import dataclasses
import gc
import gzip
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.httpsession import URLLib3Session
from pydantic import SecretStr, ValidationError
from urllib3 import HTTPResponse

from obs_assets.crash import interrupted
from obs_assets.destinations.base import Delivery
from obs_assets.destinations.s3 import Manifest, S3Config, S3Destination, encode
from obs_assets.destinations.s3.config import MIB
from obs_assets.errors import (
    ConfigurationError,
    HourBusyError,
    PermanentError,
    StaleHourError,
    TransientError,
)
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import S3Settings, Settings
from obs_assets_tests.conftest import connect_s3
from obs_assets_tests.frames import HOUR, frame_of, offer_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NEXT = HOUR.next
FOLDER = "cortex-events/year=2025/month=12/day=04/hour=10/"
FIRST = FOLDER + "events-2025120410.jsonl.gz"
MANIFEST = "cortex-events/_manifests/2025120410.json"


@pytest.fixture
def server(settings: Settings) -> S3Settings:
    """A bucket of this test's own."""
    assert settings.s3
    return settings.s3


@pytest.fixture
def client(server: S3Settings) -> Iterator["S3Client"]:
    """A client that knows nothing of us."""
    with contextlib.closing(connect_s3(server)) as client:
        yield client


@pytest.fixture
def destination(server: S3Settings) -> S3Destination:
    """The default archive in it."""
    return S3Destination(S3Config(), server)


def files_held() -> int:
    """Temporary files of packed objects that this process has open."""
    spool = tempfile.SpooledTemporaryFile
    files = [found for found in gc.get_objects() if type(found) is spool]
    return sum(not file.closed for file in files)


def keys(client: "S3Client", server: S3Settings) -> list[str]:
    """All keys of the bucket."""
    return [
        stored["Key"]
        for stored in client.list_objects_v2(Bucket=server.bucket).get("Contents", [])
    ]


def read(client: "S3Client", server: S3Settings, key: str) -> bytes:
    """The bytes behind a key."""
    return client.get_object(Bucket=server.bucket, Key=key)["Body"].read()


def manifest_of(client: "S3Client", server: S3Settings, key: str = MANIFEST) -> Manifest:
    """A manifest as it lies in the bucket."""
    return Manifest.from_json(read(client, server, key))


def held(
    destination: S3Destination, duck: duckdb.DuckDBPyConnection, hour: Hour = HOUR
) -> list[Any]:
    """The events of an hour that are in the bucket."""
    return sorted(
        (json.loads(event) for _, event in destination.read_back(duck, hour).fetchall()),
        key=str,
    )


def watched(destination: S3Destination) -> list[str]:
    """Let a destination tell, in the list returned, which requests that change something it sends."""
    sent: list[str] = []

    def note(model: Any, **_: object) -> None:
        if not model.name.startswith(("Get", "Head", "List")):
            sent.append(model.name)

    destination.place.client.meta.events.register("before-call.s3", note)
    return sent


def at_first_put(destination: S3Destination, act: Callable[[], object]) -> None:
    """Let something happen just before a destination's first upload."""
    left = [act]

    def interrupt(**_: object) -> None:
        while left:
            left.pop()()

    destination.place.client.meta.events.register("before-call.s3.PutObject", interrupt)


def noise(size: int, seed: int = 0) -> str:
    """Text that hardly shrinks."""
    return random.Random(seed).randbytes(size // 2).hex()


# -- an hour -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_hour_is_one_object_and_a_manifest(
    destination: S3Destination,
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
) -> None:
    """Every event is a line with ``_obs`` at its end; the manifest says what the object is."""
    events: list[dict[str, Any]] = [{"n": 1}, {}, {"t": 'é "😀"\n\\'}]
    offer = offer_of(frame_of(duck, events, weight=2.5))
    delivery = destination.deliver(offer)
    assert (delivery.written, delivery.already_there) == (3, 0)
    assert keys(client, server) == [MANIFEST, FIRST]
    stored = read(client, server, FIRST)
    lines = gzip.decompress(stored).decode().splitlines()
    uids = [uid for (uid,) in offer.frame.project("row_uid").fetchall()]
    assert [json.loads(line) for line in lines] == [
        {**event, "_obs": {"row_uid": uid, "weight": 2.5, "hour": "2025-12-04-10:00"}}
        for event, uid in zip(events, uids, strict=True)
    ]
    manifest = manifest_of(client, server)
    assert (manifest.hour, manifest.version, manifest.rows) == (HOUR.key, offer.version, 3)
    assert manifest.content_hash == offer.content_hash
    assert [dataclasses.asdict(one) for one in manifest.objects] == [
        {
            "key": FIRST,
            "rows": 3,
            "bytes": len(stored),
            "uncompressed_bytes": len(gzip.decompress(stored)),
            "sha256": hashlib.sha256(stored).hexdigest(),
            "etag": hashlib.md5(stored).hexdigest(),
            "version_id": None,
        }
    ]
    head = client.head_object(Bucket=server.bucket, Key=FIRST)
    assert head["ContentType"] == "application/gzip"
    assert destination.holding(HOUR) == manifest.holding
    assert destination.holding(NEXT) is None
    assert delivery.stats["total_batches_uploaded"] == 1
    assert delivery.stats["total_bytes_uploaded"] == delivery.size_bytes == len(stored)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "key"),
    [
        (
            {"partition_format": "year/month/day"},
            "cortex-events/year=2025/month=12/day=04/events-2025120410.jsonl.gz",
        ),
        (
            {"partition_format": "year-month-day"},
            "cortex-events/2025-12-04/events-2025120410.jsonl.gz",
        ),
        ({"partitioning": False, "prefix": "a/b"}, "a/b/events-2025120410.jsonl.gz"),
        ({"compression": False}, FOLDER + "events-2025120410.jsonl"),
    ],
)
def test_hours_keep_their_own_objects_in_every_layout(
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
    options: dict[str, Any],
    key: str,
) -> None:
    """Where a folder holds many hours, a rebuild still replaces only its hour's object."""
    destination = S3Destination(S3Config(**options), server)
    for hour in (HOUR, NEXT):
        destination.deliver(offer_of(frame_of(duck, [{"n": 1}], hour), hour))
    beside = client.head_object(
        Bucket=server.bucket, Key=destination.config.object_key(NEXT, 0)
    )
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}, {"n": 2}]), generation=2))
    assert sum("events-" in name for name in keys(client, server)) == 2
    assert key in keys(client, server)
    assert held(destination, duck) == [{"n": 1}, {"n": 2}]
    assert held(destination, duck, NEXT) == [{"n": 1}]
    after = client.head_object(Bucket=server.bucket, Key=destination.config.object_key(NEXT, 0))
    assert after["LastModified"] == beside["LastModified"]


def test_another_layout_takes_the_old_objects_away(
    destination: S3Destination,
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
) -> None:
    """An hour that is built with another partition format lies there alone."""
    offer = offer_of(frame_of(duck, [{"n": 1}]))
    destination.deliver(offer)
    other = S3Destination(
        S3Config(partition_format="year-month-day", compression=False), server
    )
    other.deliver(replace(offer, version=InputVersion(1, "other", "code")))
    assert keys(client, server) == [
        "cortex-events/2025-12-04/events-2025120410.jsonl",
        MANIFEST,
    ]


def test_the_same_offer_again_uploads_nothing(
    destination: S3Destination, duck: duckdb.DuckDBPyConnection
) -> None:
    """An hour that is there is not sent, and a rebuild that makes the same bytes is not sent either."""
    offer = offer_of(frame_of(duck, [{"n": 1}, {"n": 2}]))
    destination.deliver(offer)
    sent = watched(destination)
    assert destination.deliver(replace(offer, run_id="run-2")) == Delivery(
        written=0, already_there=2
    )
    rebuilt = destination.deliver(replace(offer, rebuild=True))
    assert (rebuilt.written, rebuilt.already_there, rebuilt.size_bytes) == (0, 2, 0)
    assert sent == []


def test_a_new_version_of_the_same_content_only_says_so(
    destination: S3Destination,
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
) -> None:
    """A newer generation with the same rows moves the manifest, not the object."""
    frame = frame_of(duck, [{"n": 1}])
    destination.deliver(offer_of(frame))
    sent = watched(destination)
    assert destination.deliver(offer_of(frame, generation=2)).already_there == 1
    assert sent == ["PutObject"]
    assert manifest_of(client, server).version.generation == 2


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["delete", "overwrite"])
def test_what_was_damaged_by_hand_comes_back(
    destination: S3Destination,
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
    damage: str,
) -> None:
    """The manifest alone does not make an hour "already there": its objects must be those that it names."""
    offer = offer_of(frame_of(duck, [{"n": 1}]))
    destination.deliver(offer)
    before = read(client, server, FIRST)
    if damage == "delete":
        client.delete_object(Bucket=server.bucket, Key=FIRST)
    else:
        client.put_object(Bucket=server.bucket, Key=FIRST, Body=gzip.compress(b'{"n":2}\n'))
    assert destination.deliver(offer).written == 1
    assert read(client, server, FIRST) == before


def test_an_older_generation_is_turned_away(
    destination: S3Destination, duck: duckdb.DuckDBPyConnection
) -> None:
    """A run that has seen less never takes events away, not even as a rebuild."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}, {"n": 2}]), generation=7))
    sent = watched(destination)
    with pytest.raises(StaleHourError, match=r"generation 7 .* 6"):
        destination.deliver(offer_of(frame_of(duck, [{"n": 1}]), generation=6, rebuild=True))
    assert sent == []
    assert held(destination, duck) == [{"n": 1}, {"n": 2}]


@pytest.mark.slow
def test_an_hour_may_be_empty(
    destination: S3Destination,
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
) -> None:
    """An hour without events is a manifest without objects, and an hour that loses all of them loses its object."""
    assert held(destination, duck) == []
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    destination.deliver(offer_of(frame_of(duck, []), generation=2))
    assert keys(client, server) == [MANIFEST]
    assert manifest_of(client, server).objects == ()
    assert held(destination, duck) == []
    holding = destination.holding(HOUR)
    assert holding
    assert holding.rows == 0


def test_what_does_not_fit_the_offer_is_not_published(
    destination: S3Destination, duck: duckdb.DuckDBPyConnection
) -> None:
    """A frame with other rows than offered never becomes the hour."""
    offer = offer_of(frame_of(duck, [{"n": 1}]))
    with pytest.raises(PermanentError, match="2 rows"):
        destination.deliver(replace(offer, rows=2))
    assert destination.holding(HOUR) is None


# -- bytes -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_hour_is_the_same_bytes(
    duck: duckdb.DuckDBPyConnection,
) -> None:
    """Objects do not depend on how the rows came in, on threads or on the clock; the header names no time."""
    frame = frame_of(duck, [{"n": n, "text": noise(700, n % 50)} for n in range(8000)])
    config = S3Config(part_size_mb=2)

    def packed(**sizes: int) -> list[bytes]:
        made = []
        for one in encode.pack(frame, HOUR, config, **sizes):
            with one.file:
                made.append(one.file.read())
                assert hashlib.sha256(made[-1]).hexdigest() == one.sha256
        return made

    first = packed()
    assert len(first) == 4
    assert all(one[:10] == bytes.fromhex("1f8b0800000000000003") for one in first)
    duck.execute("SET threads = 1")
    assert packed(batch_rows=100_000) == first


@pytest.mark.slow
def test_a_large_hour_is_numbered_objects(
    server: S3Settings, client: "S3Client", duck: duckdb.DuckDBPyConnection
) -> None:
    """Each ends with the line that reaches the size; when the hour shrinks, what is too much goes."""
    destination = S3Destination(S3Config(part_size_mb=1), server)
    told = [{"n": n, "text": noise(300_000, n)} for n in range(9)]
    destination.deliver(offer_of(frame_of(duck, told)))
    assert keys(client, server) == [
        MANIFEST,
        FOLDER + "events-2025120410-0001.jsonl.gz",
        *[FOLDER + "events-2025120410-0002.jsonl.gz", FIRST],
    ]
    assert [
        (one.rows, one.uncompressed_bytes >= MIB) for one in manifest_of(client, server).objects
    ] == [
        (4, True),
        (4, True),
        (1, False),
    ]
    assert held(destination, duck) == told
    sent = watched(destination)
    destination.deliver(offer_of(frame_of(duck, told[:4]), generation=2))
    assert keys(client, server) == [MANIFEST, FIRST]
    assert sent == [
        "PutObject",
        "DeleteObject",
        "DeleteObject",
    ]  # the first object is what it was


@pytest.mark.slow
def test_a_large_object_goes_in_parts(
    server: S3Settings, client: "S3Client", duck: duckdb.DuckDBPyConnection
) -> None:
    """Above the threshold an object is uploaded in parts; uploads that a killed run left of this hour are aborted."""
    destination = S3Destination(S3Config(compression=False), server)
    key = FOLDER + "events-2025120410.jsonl"
    beside = destination.config.object_key(NEXT, 0)
    for name in (key, beside):
        client.create_multipart_upload(Bucket=server.bucket, Key=name)
    told = [{"n": n, "text": noise(MIB, n)} for n in range(12)]
    offer = offer_of(frame_of(duck, told))
    destination.deliver(offer)
    assert manifest_of(client, server).objects[0].etag.endswith("-3")
    assert held(destination, duck) == sorted(told, key=str)
    assert destination.deliver(offer).already_there == 12
    uploads = client.list_multipart_uploads(Bucket=server.bucket).get("Uploads", [])
    assert [upload["Key"] for upload in uploads] == [beside]
    head = client.head_object(Bucket=server.bucket, Key=key)
    assert head["Metadata"]["sha256"] == manifest_of(client, server).objects[0].sha256
    assert head["ContentType"] == "application/x-ndjson"


@pytest.mark.slow
def test_everybody_can_read_it(
    destination: S3Destination,
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
    tmp_path: Path,
) -> None:
    """The recipe of docs/s3.md counts the events of each hour, whatever keys the events have."""
    for hour in (HOUR, NEXT):
        odd = {"": 1, "A": 1, "a": {"b": 2}, "_obs": {"weight": 99}}
        frame = frame_of(
            duck, [{"n": 1, "cost": 0.5}, {"n": 2, "text": "é\n😀"}, odd], hour, weight=10
        )
        destination.deliver(offer_of(frame, hour))
    for key in keys(client, server):
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read(client, server, key))
    page = Path(__file__).parents[2] / "docs" / "s3.md"
    recipe = page.read_text().split("```sql\n")[1].split(";")[0]
    found = duck.sql(recipe.replace("cortex-events/", f"{tmp_path}/cortex-events/"))
    assert sorted(found.fetchall()) == [
        ("2025-12-04-10:00", 3, 30.0),
        ("2025-12-04-11:00", 3, 30.0),
    ]


def test_events_come_back_to_the_character(
    destination: S3Destination, duck: duckdb.DuckDBPyConnection
) -> None:
    """Reading back undoes what delivery added, by text: numbers keep their digits, escapes their form."""
    told = [
        "{}",
        '{"n": 1e400, "big": 123456789012345678901234567890, "fine": 1.10}',
        r'{"a": "\u0000 \ud83d\ude00 \\", "b": "tab\t"}',
        '{"_obs": {"row_uid": "x", "weight": 1, "hour": "h"}}',
        '{"_obs":{"row_uid":"x","weight":1.0,"hour":"h"}}',
        r'{"text": "\"_obs\":{\"row_uid\":\"x\",\"weight\":1,\"hour\":\"h\"}}"}',
        '{"text": "漢字 😀 👨‍👩‍👧"}',
        '{"a": "}}"}',
    ]
    offer = offer_of(frame_of(duck, told, weight=1 / 3))
    destination.deliver(offer)
    selected = destination.selected(offer.frame).project("row_uid, event")
    assert destination.read_back(duck, HOUR).fetchall() == selected.fetchall()
    own = [event for event in told if not event.startswith('{"_obs"')]
    assert [
        event
        for (event,) in selected.project("event").fetchall()
        if "_obs_original" not in event
    ] == own


@pytest.mark.parametrize("key", ['"_obs"', r'"\u005fobs"'])
def test_an_event_from_an_archive_is_counted_once(
    destination: S3Destination,
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
    key: str,
) -> None:
    """A line has one field `_obs`, ours; what the event brought stands in `_obs_original`."""
    event = f'{{"n": 1, {key}: {{"row_uid": "x", "weight": 99, "hour": "h"}}}}'
    destination.deliver(offer_of(frame_of(duck, [event, '{"n": 2}'], weight=2)))
    lines = gzip.decompress(read(client, server, FIRST)).decode().splitlines()
    pairs = [json.loads(line, object_pairs_hook=list) for line in lines]
    assert [sum(name == "_obs" for name, _ in line) for line in pairs] == [1, 1]
    parsed = [json.loads(line) for line in lines]
    assert sum(line["_obs"]["weight"] for line in parsed) == 4
    assert parsed[0]["_obs_original"]["weight"] == 99


def test_reading_back_shows_what_is_wrong(
    destination: S3Destination,
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
) -> None:
    """Foreign and broken lines are rows without identity; a missing object is missing rows."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    foreign = FOLDER + "events-2025120410-0007.jsonl.gz"
    client.put_object(
        Bucket=server.bucket, Key=foreign, Body=gzip.compress(b'{"n":2}\n{"n":\n')
    )
    client.put_object(
        Bucket=server.bucket, Key=FOLDER + "events-2025120410.txt", Body=b"a note"
    )
    client.delete_object(Bucket=server.bucket, Key=FIRST)
    assert sorted(destination.read_back(duck, HOUR).fetchall(), key=str) == [
        (None, '{"n":2}'),
        (None, None),
    ]


# -- others at work ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "error"), [(3, StaleHourError), (1, HourBusyError), (2, None)]
)
def test_of_two_writers_one_is_stopped(
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
    other: int,
    error: type[Exception] | None,
) -> None:
    """While one run is about to upload, another writes the hour: newer, older or the same; nothing gets mixed."""
    destination, rival = S3Destination(S3Config(), server), S3Destination(S3Config(), server)
    destination.deliver(offer_of(frame_of(duck, [{"n": 0}]), generation=0))
    ours, theirs = (offer_of(frame_of(duck, [{"n": n}]), generation=n) for n in (2, other))
    at_first_put(destination, lambda: rival.deliver(theirs))
    with pytest.raises(error) if error else contextlib.nullcontext():
        destination.deliver(ours)
    manifest = manifest_of(client, server)
    assert manifest.version.generation == other
    assert manifest.objects[0].sha256 == hashlib.sha256(read(client, server, FIRST)).hexdigest()
    assert held(destination, duck) == [{"n": other}]
    with contextlib.suppress(StaleHourError):
        destination.deliver(ours)
    assert held(destination, duck) == [{"n": max(2, other)}]


@pytest.mark.slow
def test_a_writer_that_lost_its_objects_does_not_publish(
    destination: S3Destination,
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
) -> None:
    """Another run replaces the objects just before the manifest is put: it wins, and its manifest stays."""
    rival = S3Destination(S3Config(), server)
    destination.deliver(offer_of(frame_of(duck, [{"n": 0}]), generation=0))
    ours, theirs = (offer_of(frame_of(duck, [{"n": n}]), generation=n) for n in (1, 2))
    at_first_put(destination, lambda: at_first_put(destination, lambda: rival.deliver(theirs)))
    with pytest.raises(StaleHourError):
        destination.deliver(ours)
    manifest = manifest_of(client, server)
    assert manifest.version.generation == 2
    assert manifest.objects[0].sha256 == hashlib.sha256(read(client, server, FIRST)).hexdigest()
    assert held(destination, duck) == [{"n": 2}]


def test_a_lost_answer_is_no_lost_race(
    destination: S3Destination,
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
) -> None:
    """The object was stored, but the answer did not come: the repetition finds its own bytes and goes on."""
    answered: list[int] = []

    def lose(request: Any, **_: object) -> Any:
        if answered:
            return None
        answered.append(
            destination.place.client._endpoint.http_session.send(request).status_code
        )  # type: ignore[attr-defined]
        return AWSResponse(
            request.url, 503, HTTPHeaders(), HTTPResponse(io.BytesIO(), preload_content=False)
        )

    destination.place.client.meta.events.register("before-send.s3.PutObject", lose)
    assert destination.deliver(offer_of(frame_of(duck, [{"n": 1}]))).written == 1
    assert answered == [200]
    assert (
        manifest_of(client, server).objects[0].sha256
        == hashlib.sha256(read(client, server, FIRST)).hexdigest()
    )


def test_an_object_is_packed_while_another_is_on_its_way(
    server: S3Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """The upload of the first of three objects waits until the second is packed; two are held at most."""
    destination = S3Destination(S3Config(part_size_mb=1), server)
    second = threading.Event()
    held: list[int] = []

    def count() -> None:

        held.append(files_held())
        if len(held) == 2:
            second.set()

    def wait() -> None:
        assert second.wait(20)
        held.append(files_held())

    offer = offer_of(frame_of(duck, [{"n": n, "text": "x" * MIB} for n in range(3)]))
    with interrupted("s3.after_packing", count), interrupted("s3.before_object", wait):
        assert destination.deliver(offer).written == 3
    assert max(held) == 2
    assert files_held() == 0


@pytest.mark.slow
def test_an_upload_that_fails_ends_the_packing(
    server: S3Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Nothing is published, no third object is packed, and no file is left open."""
    destination = S3Destination(S3Config(part_size_mb=1), server)
    packed: list[str] = []

    def fail() -> None:
        raise TransientError("S3 failed")

    offer = offer_of(frame_of(duck, [{"n": n, "text": "x" * MIB} for n in range(9)]))
    with (
        interrupted("s3.after_packing", lambda: packed.append("object")),
        interrupted("s3.before_object", fail),
        pytest.raises(TransientError, match="S3 failed"),
    ):
        destination.deliver(offer)
    assert len(packed) <= 2
    assert files_held() == 0
    assert destination.holding(HOUR) is None


def test_threads_share_a_destination(
    destination: S3Destination, duck: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sensors of one process ask it at the same time: who is done first, closes nothing under another's request."""
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    closed: list[int] = []
    close = URLLib3Session.close
    monkeypatch.setattr(
        URLLib3Session, "close", lambda session: (closed.append(1), close(session))
    )
    both_asked = threading.Barrier(2, timeout=20)

    def meet(**_: object) -> None:
        both_asked.wait()
        if threading.current_thread().name.endswith("_1"):
            first.result(20)
            seen.append(len(closed))

    seen: list[int] = []
    destination.place.client.meta.events.register("before-send.s3.GetObject", meet)
    with ThreadPoolExecutor(2, thread_name_prefix="tick") as ticks:
        first = ticks.submit(destination.holding, HOUR)
        second = ticks.submit(destination.holding, HOUR)
        assert first.result() == second.result() is not None
    assert seen == [0]
    assert closed == [1]


# -- faults ------------------------------------------------------------------------------------------------------------

DELIVER = """
import duckdb
from obs_assets import crash
from obs_assets.destinations.s3 import S3Config, S3Destination
from obs_assets.settings import S3Settings
from obs_assets_tests.frames import frame_of, offer_of
import os, random

with duckdb.connect() as connection:
    told = [{"n": n, "text": random.Random(n).randbytes(300_000).hex()} for n in range(3)]
    offer = offer_of(frame_of(connection, told), generation=2)
    crash.arm(os.environ["CRASH"])
    server = S3Settings.model_validate_json(os.environ["SERVER"])
    S3Destination(S3Config(part_size_mb=1), server).deliver(offer)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "committed"),
    [
        ("after_packing:2", 1),
        ("before_object:2", 1),
        ("after_object", 1),
        ("after_object:2", 1),
        ("after_manifest", 2),
    ],
)
def test_a_killed_upload_is_repaired_by_the_next(
    server: S3Settings,
    client: "S3Client",
    duck: duckdb.DuckDBPyConnection,
    point: str,
    committed: int,
) -> None:
    """SIGKILL at any point leaves a manifest, the old one or the new; a re-run makes bucket and manifest agree."""
    destination = S3Destination(S3Config(part_size_mb=1), server)
    destination.deliver(
        offer_of(frame_of(duck, [{"n": n, "text": noise(2 * MIB, n)} for n in range(3)]))
    )
    assert len(keys(client, server)) == 4
    assert server.secret_access_key
    said = {
        **server.model_dump(),
        "secret_access_key": server.secret_access_key.get_secret_value(),
    }
    environment = {**os.environ, "CRASH": f"s3.{point}", "SERVER": json.dumps(said)}
    killed = subprocess.run([sys.executable, "-c", DELIVER], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert manifest_of(client, server).version.generation == committed
    told = [{"n": n, "text": random.Random(n).randbytes(300_000).hex()} for n in range(3)]
    offer = offer_of(frame_of(duck, told), generation=2)
    again = destination.deliver(offer)
    assert again.already_there == (3 if committed == 2 else 0)
    assert keys(client, server) == [MANIFEST, FOLDER + "events-2025120410-0001.jsonl.gz", FIRST]
    manifest = manifest_of(client, server)
    assert manifest.holding == destination.holding(HOUR)
    for one in manifest.objects:
        assert hashlib.sha256(read(client, server, one.key)).hexdigest() == one.sha256
    assert held(destination, duck) == told


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistake", "names"),
    [
        ({"bucket": "no-such-bucket"}, "AWS_S3_BUCKET"),
        ({"secret_access_key": SecretStr("CANARY_9f")}, "AWS credentials"),
        ({"access_key_id": "CANARY_9f"}, "AWS credentials"),
        ({"endpoint_url": "http://127.0.0.1:1"}, "AWS_ENDPOINT_URL_S3"),
        ({"endpoint_url": "127.0.0.1"}, "AWS_ENDPOINT_URL_S3"),
        ({"bucket": "a/b c"}, "AWS_S3_BUCKET"),
    ],
)
def test_a_bucket_that_cannot_be_reached_is_named_with_its_setting(
    server: S3Settings, duck: duckdb.DuckDBPyConnection, mistake: dict[str, Any], names: str
) -> None:
    """One sentence says what to change, and holds no key; a server that is down is worth another try in a run."""
    destination = S3Destination(S3Config(max_retries=0), server.model_copy(update=mistake))
    with pytest.raises(ConfigurationError, match=names) as raised:
        destination.check()
    assert "CANARY" not in str(raised.value)
    with pytest.raises((ConfigurationError, TransientError), match=names) as raised_by_run:
        destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    assert "CANARY" not in str(raised_by_run.value)
    assert isinstance(raised_by_run.value, TransientError) == ("127.0.0.1:1" in str(mistake))


def test_credentials_may_be_missing(
    server: S3Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without any credentials in settings or environment, the message says which variables to set."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    nobody = server.model_copy(update={"access_key_id": None, "secret_access_key": None})
    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
        S3Destination(S3Config(), nobody).check()


def test_a_bucket_that_is_there_is_named(
    destination: S3Destination, server: S3Settings
) -> None:
    """The check says which bucket it reached, and where."""
    assert destination.check() == f"s3://{server.bucket} at {server.endpoint_url}"


def test_a_given_client_is_used_and_left_open(
    server: S3Settings, client: "S3Client", duck: duckdb.DuckDBPyConnection
) -> None:
    """Dagster's S3 resource can supply the client."""
    destination = S3Destination(S3Config(), server, client)
    sent = watched(destination)
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    assert sent == ["PutObject", "PutObject"]
    assert keys(client, server) == [MANIFEST, FIRST]


def test_storage_options_are_passed_on(
    server: S3Settings, client: "S3Client", duck: duckdb.DuckDBPyConnection
) -> None:
    """Class and encryption go with the objects; the manifest is encrypted, but stays quick to read."""
    asked: list[dict[str, Any]] = []

    def note(params: dict[str, Any], **_: object) -> None:
        names = ("StorageClass", "ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled")
        asked.append({name: params.pop(name) for name in names if name in params})

    client.meta.events.register("provide-client-params.s3.PutObject", note)
    config = S3Config(
        storage_class="STANDARD_IA", server_side_encryption="aws:kms", kms_key_id="key"
    )
    S3Destination(config, server, client).deliver(offer_of(frame_of(duck, [{"n": 1}])))
    kms = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key", "BucketKeyEnabled": True}
    assert asked == [{"StorageClass": "STANDARD_IA", **kms}, kms]


@pytest.mark.parametrize(
    "options",
    [
        {"kms_key_id": "key"},
        {"compression_level": 0},
        {"compression_level": 10},
        {"multipart_threshold": MIB},
        {"partition_format": "hourly"},
        {"storage_class": "COLD"},
        {"prefix": "/a"},
        {"prefix": "a//b"},
        {"prefix": "a b"},
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    """A mistake in the configuration is found when it is read."""
    with pytest.raises(ValidationError):
        S3Config(**options)


def test_a_manifest_is_the_same_text_for_the_same_hour() -> None:
    """What is written is read back as it was, and has one form."""
    manifest = Manifest(HOUR.key, InputVersion(1, "c", "v", "l"), 0, "0" * 16, ())
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json(), parse_float=Decimal)["version"] == {
        "generation": 1,
        "config_hash": "c",
        "code_version": "v",
        "log_id": "l",
    }
