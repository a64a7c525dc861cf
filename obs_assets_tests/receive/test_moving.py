"""A receiver goes on in another folder when the events folder of its pipeline has changed."""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import requests

from obs_assets.errors import ObsError
from obs_assets.receive.moving import move
from obs_assets.receive.spool import Spool
from obs_assets_tests.receive.conftest import Inside, Process, landed, wait_for
from obs_assets_tests.sources.place import Place


def post(inside: Inside, n: int, key: str = "") -> int:
    """Send an event; the status of the answer."""
    headers = {"Idempotency-Key": key} if key else {}
    body = f'{{"time": 1935738000, "n": {n}}}'
    return inside.client.post("/events", content=body, headers=headers).status_code


def test_acknowledged_events_come_along(inside: Inside, tmp_path: Path) -> None:
    """The pipeline lands from the new folder what it has not landed from the old; files are private there too."""
    new = Place(tmp_path / "new")
    assert [post(inside, 1, "a"), post(inside, 2)] == [200, 200]
    folder = new.path("receiver/main")
    move(inside.app, folder)
    # A request that is repeated after the move, and after a restart, is known.
    assert [post(inside, 3), post(inside, 1, "a")] == [200, 200]
    inside.spool = inside.app.spool
    inside.spool.close()
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.jsonl")} == {0o600}
    assert Counter(event["n"] for event in landed(new)) == {1: 1, 2: 1, 3: 1}
    assert list(folder.glob(".keys-*"))


def test_there_and_back_lands_each_event_once(inside: Inside, tmp_path: Path) -> None:
    """A pipeline that changes between two folders reads no event twice."""
    other = Place(tmp_path / "other")
    home = inside.spool.folder
    for n in range(6):
        assert post(inside, n) == 200
        move(inside.app, (other.path("receiver/main"), home)[n % 2])
    inside.spool = inside.app.spool
    assert Counter(event["n"] for event in inside.landed()) == dict.fromkeys(range(6), 1)


def test_a_folder_of_another_receiver_is_refused(inside: Inside, tmp_path: Path) -> None:
    """The receiver goes on where it was."""
    taken = Spool(tmp_path / "taken", "main")
    with pytest.raises(ObsError, match="another `obs receive` writes into"):
        move(inside.app, taken.folder)
    taken.close()
    assert post(inside, 1) == 200
    inside.spool = inside.app.spool
    assert [event["n"] for event in inside.landed()] == [1]


def test_files_are_copied_to_another_disk(inside: Inside) -> None:
    """A file has no second name there, so its bytes are copied, and are whole before they have the name."""
    assert post(inside, 1) == 200
    with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
        new = Place(Path(disk))
        move(inside.app, new.path("receiver/main"))
        inside.spool = inside.app.spool
        inside.spool.close()
        assert [event["n"] for event in landed(new)] == [1]


@pytest.mark.slow
def test_a_bucket_in_place_of_a_folder_needs_a_restart(tmp_path: Path) -> None:
    """The log and ``obs status`` say so, the receiver goes on; the folder as before ends the advice."""
    file = tmp_path / "pipelines" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    process = Process(tmp_path, env={"OBS_PIPELINES_DIR": str(file.parents[1])})

    def use(events_dir: object) -> None:
        content = f"source: {{events_dir: {events_dir}}}, destinations: []"
        file.write_text(
            f"type: obs_assets.components.ObservabilityPipeline\nattributes: {{{content}}}\n"
        )

    use(process.place.events_dir)
    process.start()
    use("s3://shop/events")
    log = tmp_path / "receiver.log"
    wait_for(lambda: "restart `obs receive`" in log.read_text(), 60)
    wait_for(lambda: "restart `obs receive`" in status(process), 60)
    assert requests.post(f"{process.url}/events", data='{"n": 1}', timeout=10).ok
    use(process.place.events_dir)
    wait_for(lambda: "restart `obs receive`" not in status(process), 60)
    process.stop()


def status(process: Process) -> str:
    """The output of ``obs status``."""
    command = [str(Path(sys.executable).parent / "obs"), "status"]
    run = subprocess.run(
        command, env=process.environment(), check=True, capture_output=True, text=True
    )
    return run.stdout
