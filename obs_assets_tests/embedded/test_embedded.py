"""Both servers behind one call."""

import ctypes
import multiprocessing
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from obs_assets import embedded
from obs_assets.embedded.process import is_gone
from obs_assets.errors import ConfigurationError
from obs_assets.settings import PostgresSettings, S3Settings, Settings


def test_servers_of_the_users_own_are_left_alone(data_dir: Path) -> None:
    """With POSTGRES_HOST and AWS_S3_BUCKET set, nothing starts and nothing is made."""
    own = Settings(
        data_dir=data_dir, postgres=PostgresSettings(host="db"), s3=S3Settings(bucket="ours")
    )
    assert embedded.resolve(own) == own
    assert not data_dir.exists()


def test_settings_are_filled_in_at_once_when_servers_run(servers: Settings) -> None:
    """Resolving again gives the same servers: no process is started, and none is started anew."""
    processes = [status.pid for status in embedded.status(servers.data_dir)]
    assert embedded.resolve(Settings(data_dir=servers.data_dir)) == servers
    assert [status.pid for status in embedded.status(servers.data_dir)] == processes


def test_a_relative_path_and_a_link_are_the_same_folder(
    servers: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a data folder is called, it has one pair of servers."""
    (tmp_path / "link").symlink_to(servers.data_dir)
    monkeypatch.chdir(tmp_path)
    assert embedded.resolve(Settings(data_dir=Path("link"))).postgres == servers.postgres


def test_status_of_servers_that_run(servers: Settings) -> None:
    """Name, address, process and folder of each."""
    assert servers.postgres
    assert servers.s3
    postgres, s3 = embedded.status(servers.data_dir)
    assert (postgres.name, postgres.running, postgres.address) == (
        "PostgreSQL",
        True,
        f"127.0.0.1:{servers.postgres.port}",
    )
    assert (s3.name, s3.running, s3.address) == ("S3 server", True, servers.s3.endpoint_url)
    assert postgres.folder == servers.data_dir / "servers" / "postgres"
    assert postgres.pid
    assert s3.pid


def test_looking_at_nothing_makes_nothing(data_dir: Path) -> None:
    """Status and stop of a data folder that does not exist leave it so."""
    assert [
        (status.running, status.address, status.pid) for status in embedded.status(data_dir)
    ] == [
        (False, None, None),
        (False, None, None),
    ]
    assert embedded.stop(data_dir) == []
    assert not data_dir.exists()


def test_a_data_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    """The error names OBS_DATA_DIR."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="OBS_DATA_DIR"):
        embedded.postgres(tmp_path / "file")


def test_a_damaged_file_is_explained(data_dir: Path) -> None:
    """The error names the file and what removing it would cost."""
    damaged = data_dir / "servers/s3/server.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    with pytest.raises(ConfigurationError, match=r"server\.json is damaged"):
        embedded.s3(data_dir)
    damaged.unlink()


@pytest.mark.slow
def test_a_deleted_folder_makes_new_servers(data_dir: Path) -> None:
    """After ``rm -rf`` under running servers, the old processes go and new, empty ones come."""
    before = embedded.resolve(Settings(data_dir=data_dir))
    old = [status.pid for status in embedded.status(data_dir)]
    shutil.rmtree(data_dir)
    after = embedded.resolve(Settings(data_dir=data_dir))
    assert all(pid and is_gone(pid) for pid in old)
    assert before.postgres != after.postgres
    assert before.s3 != after.s3


SYS_EXIT = {"x86_64": 60, "aarch64": 93}
"""Number of the Linux system call that ends one thread, by machine."""


def lose_its_first_thread(seconds: float, number: int) -> None:
    """End the first thread of this process; another lives on for so long."""
    threading.Thread(target=time.sleep, args=(seconds,)).start()
    ctypes.CDLL(None).syscall(number, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="system calls of Linux")
def test_a_process_lives_as_long_as_its_last_thread() -> None:
    """A zombie with a live thread is not gone: that thread can still create a socket."""
    number = SYS_EXIT[os.uname().machine]
    process = multiprocessing.get_context("spawn").Process(
        target=lose_its_first_thread, args=(1.0, number)
    )
    process.start()
    assert process.pid
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not is_gone(process.pid)
    while psutil.Process(process.pid).num_threads() > 1:
        time.sleep(0.01)
    assert is_gone(process.pid)
    process.join()
