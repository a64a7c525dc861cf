"""A receiver whose events folder is a bucket: finished files are uploaded, and none is lost or sent in part."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from obs_assets.receive.spool import Rotation, Spool
from obs_assets.receive.upkeep import Uploader
from obs_assets.settings import Settings
from obs_assets.sources import bucket
from obs_assets_tests.receive.conftest import wait_for

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.slow

LINES = b'{"n": 1}\n{"n": 2}\n'


class Place:
    """A spool, and the bucket of its events."""

    def __init__(self, folder: Path, name: str, admin: "S3Client") -> None:
        self.folder, self.name, self.admin = folder, name, admin

    def begin(self) -> None:
        """Begin, or begin again after `end` or after a kill."""
        self.uploader = Uploader(f"s3://{self.name}/logs", "receiver/main", retry_s=0.1)
        self.spool = Spool(self.folder, "main", Rotation(size_bytes=1), self.uploader.add)

    def write(self, lines: bytes = LINES) -> None:
        """Write a request; it fills a file."""
        self.spool.write(lines).result(timeout=10)

    def end(self) -> None:
        """End as `obs receive` does."""
        self.spool.close()
        self.uploader.close()

    def objects(self) -> list[bytes]:
        """The objects of the receiver, in the order of their names."""
        found = self.admin.list_objects_v2(Bucket=self.name, Prefix="logs/receiver/main/")
        keys = sorted(item["Key"] for item in found.get("Contents", []))
        return [self.admin.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys]


@pytest.fixture
def place(
    settings: Settings, s3_admin: "S3Client", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    server = settings.s3
    assert server
    assert server.access_key_id
    assert server.secret_access_key
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", str(server.endpoint_url))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key.get_secret_value())
    monkeypatch.setenv("AWS_DEFAULT_REGION", server.region)
    bucket.client.cache_clear()
    yield Place(tmp_path / "spool", server.bucket, s3_admin)
    bucket.client().close()
    bucket.client.cache_clear()


def test_finished_files_are_uploaded_and_removed(place: Place) -> None:
    """Each with its bytes, the last at the end of the process."""
    place.begin()
    place.write()
    wait_for(lambda: place.objects() == [LINES])
    place.write()
    place.end()
    assert place.objects() == [LINES, LINES]
    assert place.spool.files() == []


def test_a_bucket_that_cannot_be_reached_loses_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file stays in the spool until the bucket takes it, also in the next process."""
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        place.begin()
        place.write()
        place.end()
    bucket.client().close()
    bucket.client.cache_clear()
    (kept,) = place.spool.files()
    assert kept.read_bytes() == LINES
    assert place.objects() == []
    place.begin()
    wait_for(lambda: place.spool.files() == [])
    place.end()
    assert place.objects() == [LINES]


def test_files_that_wait_go_to_the_present_bucket(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change of the events folder, the pipeline reads the other prefix: acknowledged events are there."""
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        place.begin()
        place.uploader.move(f"s3://{place.name}/before")
        place.write()
        place.end()
    bucket.client().close()
    bucket.client.cache_clear()
    place.begin()
    place.uploader.move(f"s3://{place.name}/logs")
    place.write()
    place.end()
    assert place.objects() == [LINES, LINES]


def test_a_torn_line_is_not_uploaded(tmp_path: Path) -> None:
    """After a kill, the line that no client was told of is cut off before the file is handed on."""
    left = tmp_path / "main-0000000001-20251204T100000.jsonl"
    left.write_bytes(LINES + b'{"n": 3, "te')
    handed_on: list[bytes] = []
    spool = Spool(tmp_path, "main", on_sealed=lambda path: handed_on.append(path.read_bytes()))
    spool.close()
    assert handed_on == [LINES]
