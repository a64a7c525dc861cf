"""Event files in a bucket, on a real S3 server."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from obs_assets.errors import ConfigurationError, TransientError
from obs_assets.settings import Settings
from obs_assets.sources import bucket
from obs_assets.sources.files import SourceConfig, list_files
from obs_assets.sources.landing import BatchSizes, LandingReport
from obs_assets.sources.unpack import zstd
from obs_assets_tests.sources.place import Place, after_listing, events, text

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class Bucket(Place):
    """A place whose event files lie in a bucket."""

    url: str
    name: str
    admin: "S3Client"

    def put(self, key: str, content: bytes) -> None:
        self.admin.put_object(Bucket=self.name, Key=f"logs/{key}", Body=content)

    def land(self, **options: object) -> LandingReport:
        return super().land(**{"events_dir": self.url, **options})


@pytest.fixture
def remote(
    settings: Settings, s3_admin: "S3Client", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bucket]:
    """A prefix of an empty bucket, reached as the standard AWS chain says."""
    server = settings.s3
    assert server
    assert server.access_key_id
    assert server.secret_access_key
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", str(server.endpoint_url))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key.get_secret_value())
    monkeypatch.setenv("AWS_REGION", server.region)
    monkeypatch.setenv("AWS_DEFAULT_REGION", server.region)
    place = Bucket(tmp_path)
    place.url, place.name, place.admin = f"s3://{server.bucket}/logs", server.bucket, s3_admin
    bucket.client.cache_clear()
    yield place
    bucket.client().close()
    bucket.client.cache_clear()


def test_objects_are_found_below_the_prefix(remote: Bucket) -> None:
    """Recursively, by the same patterns and event types as files; a prefix that only begins alike is another one."""
    for key in ("a.jsonl", "deep/b.jsonl.1", "deep/c.txt", ".hidden/d.jsonl"):
        remote.put(key, b"{}\n")
    remote.admin.put_object(Bucket=remote.name, Key="logs2/e.jsonl", Body=b"{}\n")
    listing = list_files(SourceConfig(events_dir=remote.url))
    assert [file.path for file in listing.files] == ["a.jsonl", "deep/b.jsonl.1"]
    picky = SourceConfig(events_dir=remote.url, exclude=("deep/*",), event_types=("a.",))
    assert [file.path for file in list_files(picky).files] == ["a.jsonl"]


ODD_KEYS = (
    "agents/2026-11-25T09:00:00+00:00/1.jsonl",
    "agents/has some spaces.jsonl",
    "agents/percent%2Bliteral.jsonl",
    "agents/hour=09/ümlaut-日本.jsonl",
    "agents/a&b=c;d,e@f$.jsonl",
    "agents/quote'and\"double.jsonl",
)


def test_odd_keys_are_read_as_they_are(remote: Bucket) -> None:
    """Blanks, signs and letters of any kind in keys: each object lands once, under its own key."""
    others = ("agents/UPPER.JSONL", "agents/folder.jsonl/")
    lines = events(len(ODD_KEYS))
    for key, line in zip(ODD_KEYS, lines, strict=True):
        remote.admin.put_object(Bucket=remote.name, Key=key, Body=text([line]))
    for key in others:
        remote.admin.put_object(Bucket=remote.name, Key=key, Body=b"")
    url = f"s3://{remote.name}/agents/"
    found = list_files(SourceConfig(events_dir=url)).files
    assert {f"agents/{file.path}" for file in found} == set(ODD_KEYS)
    others_alone = SourceConfig(events_dir=url, exclude=("hour=*/*",))
    assert len(list_files(others_alone).files) == len(ODD_KEYS) - 1
    remote.land(events_dir=url)
    assert remote.land(events_dir=url).files_read == 0
    assert remote.audit().lines() == sorted(lines)


@pytest.mark.parametrize("prefix", ["team#1/logs", "what?/logs", "a%20b", "c;d"])
def test_a_prefix_may_hold_any_sign(remote: Bucket, prefix: str) -> None:
    """A prefix is never cut at a sign that means something in URLs: a neighbour's objects are not read."""
    remote.admin.put_object(Bucket=remote.name, Key=f"{prefix}/x.jsonl", Body=b"{}\n")
    for neighbour in ("team/", "what/", "a b/", "c/"):
        remote.admin.put_object(Bucket=remote.name, Key=f"{neighbour}other.jsonl", Body=b"{}\n")
    listing = list_files(SourceConfig(events_dir=f"s3://{remote.name}/{prefix}/"))
    assert [file.path for file in listing.files] == ["x.jsonl"]


@pytest.mark.slow
def test_objects_are_landed_as_they_grow(remote: Bucket) -> None:
    """An object replaced by a longer one goes on where it was; unchanged ones are not opened."""
    lines = events(400)
    remote.put("a.jsonl", text(lines[:300]))
    remote.put("b.jsonl.zst", zstd.compress(text(lines[300:])))
    assert remote.land().files_read == 2
    assert remote.land().files_read == 0
    more = events(2)
    remote.put("a.jsonl", text(lines[:300] + more))
    assert remote.land().bytes_read == len(text(more))
    assert remote.audit().lines() == sorted(lines + more)


@pytest.mark.slow
def test_overwritten_renamed_and_copied_objects(remote: Bucket) -> None:
    """Other content under the same key is a new file, the same content under another key is the same one."""
    lines = events(60)
    remote.put("a.jsonl", text(lines))
    remote.land()
    remote.put("a.jsonl.1", text(lines))
    other = events(60)
    remote.put("a.jsonl", text(other))
    remote.put("copy.jsonl", text(other))
    assert remote.land().warnings == {"copy of another file": 1}
    assert remote.audit().lines() == sorted(lines + other)


@pytest.mark.slow
def test_pieces_of_a_large_object(remote: Bucket) -> None:
    """An object larger than what is read at a time is read by ranges, whole."""
    remote.sizes = BatchSizes(largest=8192)
    lines = events(3000)
    remote.put("a.jsonl", text(lines))
    remote.land(max_event_bytes=1024)
    assert remote.audit().lines() == sorted(lines)


def test_object_replaced_after_the_listing(remote: Bucket) -> None:
    """Nothing of two versions is mixed: the pass leaves it alone, the next one lands it."""
    remote.put("a.jsonl", text(events(30)))
    after = events(50)
    with after_listing(lambda: remote.put("a.jsonl", text(after))):
        assert remote.land().warnings == {"unreadable file": 1}
    remote.land()
    assert remote.audit().lines() == sorted(after)


def test_missing_bucket_and_silent_server_are_explained(
    remote: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the address and the setting; a server that does not answer may do so later."""
    with pytest.raises(
        ConfigurationError, match=r"s3://no-such-bucket/x \(OBS_EVENTS_DIR\): NoSuchBucket"
    ):
        list_files(SourceConfig(events_dir="s3://no-such-bucket/x"))
    bucket.client().close()
    bucket.client.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="EndpointConnectionError"):
        list_files(SourceConfig(events_dir=remote.url))
