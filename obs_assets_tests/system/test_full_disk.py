"""The disk of a receiver fills: nothing that was acknowledged is lost, and it goes on when there is room."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from obs_assets_tests.receive.conftest import MAIN, Process

pytestmark = pytest.mark.system

SIZE = "4m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills(small_disk: Path) -> None:
    """The answer is 503 with `Retry-After`; acknowledged events are stored once each, and no line is torn."""
    process = Process(small_disk)
    process.start()
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (1 << 20))
    acknowledged: list[int] = []
    refused = 0
    for n in range(400):
        body = f'{{"time": 1935738000, "n": {n}, "text": "{"x" * 20_000}"}}'
        answer = requests.post(f"{process.url}/events", data=body, timeout=30)
        if answer.ok:
            acknowledged.append(n)
            continue
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        refused += 1
        if refused == 5:
            ballast.unlink()
        if refused == 10:
            break
    process.kill()
    # Landing would need room on the same disk: the files themselves are read.
    files = process.place.path(str(MAIN)).glob("*.jsonl")
    stored = Counter(
        json.loads(line)["n"] for file in files for line in file.read_text().splitlines()
    )
    assert refused == 10
    assert len(acknowledged) > 100
    assert set(acknowledged) <= stored.keys()
    assert set(stored.values()) == {1}
