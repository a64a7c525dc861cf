"""Programs that run on use the last valid text of a pipeline file."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.present import Present, open_present, open_valid

TEXT = """\
type: obs_assets.components.ObservabilityPipeline
attributes:
  allowed_lateness_minutes: {first}
  destinations: [{{type: postgres, table_name: {table}}}]
  # {filler}
  retention_days: {last}
"""


def text(number: int, table: str = "events") -> str:
    """A pipeline file. Half of it is valid too, but has not the second of two numbers that belong together."""
    return TEXT.format(
        first=number, last=number + 100, table=table, filler="x" * 40 * (number % 3)
    )


def number_of(hourly: HourlyPipeline) -> int:
    """The number of a file, from a configuration that is whole."""
    first = hourly.config.allowed_lateness_minutes
    assert hourly.config.retention_days == first + 100
    return first


class Folder:
    """A folder of pipelines."""

    def __init__(self, root: Path) -> None:
        self.env = {
            "OBS_PIPELINES_DIR": str(root / "pipelines"),
            "OBS_DATA_DIR": str(root / "data"),
        }
        self.root = root

    def file(self, name: str = "agents") -> Path:
        path = self.root / "pipelines" / name / "defs.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, content: str, name: str = "agents") -> Path:
        """Write a file as most editors do: all at once, under its name, a while ago."""
        path = self.file(name)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(content)
        temporary.replace(path)
        return path

    def open(self) -> Present:
        return open_present(env=self.env)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A pipeline `agents` with the number 1."""
    made = Folder(tmp_path)
    made.write(text(1))
    return made


def follows(present: Present, number: int, seconds: float = 20.0) -> bool:
    """Whether the pipeline has this number soon; it never has a half file."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if number_of(present()) == number:
            return True
        time.sleep(0.05)
    return False


def test_a_changed_value_is_followed_and_named(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names file, time and settings; numbers are shown, texts are not, since they can be secrets."""
    present = folder.open()
    with caplog.at_level(logging.INFO):
        path = folder.write(text(2, table="hidden_name"))
        assert follows(present, 2)
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"{path}, read at " in said
    assert said.endswith(
        "allowed_lateness_minutes 1 → 2, destinations.0.table_name, retention_days 101 → 102"
    )


def test_a_wrong_file_is_refused_as_a_whole(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    """File and line are said once; the configuration before stays, also in a process that starts meanwhile."""
    present = folder.open()
    path = folder.write(text(2) + "  sample: {success_rat: 1}\n")
    for _ in range(3):
        assert number_of(present()) == 1
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{path}:7: sample: unknown option 'success_rat'")
    opened = open_valid(folder.env)
    assert [number_of(hourly) for hourly in opened.pipelines.values()] == [1]
    assert f"{path}:7" in present.problem
    folder.write(text(3))
    assert follows(present, 3)
    assert not present.problem


def test_a_file_that_is_being_written_is_not_read(folder: Folder) -> None:
    """Half of a file is a valid file: it is read when it has rested, not before."""
    present = folder.open()
    path = folder.file()
    whole = text(2)
    ended = threading.Event()

    def write_slowly() -> None:
        half = whole.index("  # ")
        for pieces in (whole[:half], whole[: half + 5], whole):
            path.write_text(pieces)
            time.sleep(0.7)
        ended.set()

    writer = threading.Thread(target=write_slowly)
    writer.start()
    while not ended.is_set():
        assert number_of(present()) in {1, 2}
        time.sleep(0.05)
    writer.join()
    assert follows(present, 2)


def test_an_old_time_of_the_content_does_not_hide_a_change(folder: Folder) -> None:
    """`cp -p` and unpacking programs give a file an old time and the size can stay: the file is read."""
    present = folder.open()
    path = folder.write(text(4))
    os.utime(path, (1, 1))
    assert follows(present, 4)


@pytest.mark.parametrize("taken", ["agents", "audit"])
def test_a_changed_file_takes_no_table_of_another(folder: Folder, taken: str) -> None:
    """Of two pipelines that want a table, the pipeline that has it keeps it, whatever their names are."""
    names = {"agents": "events", "audit": "audit"}
    folder.write(text(1, "audit"), "audit")
    before = open_valid(folder.env)
    assert not before.problems
    (other,) = set(names) - {taken}
    folder.write(text(2, names[taken]), other)
    opened = open_valid(folder.env)
    assert {file.name: number_of(hourly) for file, hourly in opened.pipelines.items()} == {
        "agents": 1,
        "audit": 1,
    }
    (problem,) = opened.problems.values()
    assert problem.endswith(f"{names[taken]} already: give each its own")


def removed(folder: Folder) -> None:
    folder.file().unlink()


def emptied(folder: Folder) -> None:
    folder.write("")


def unreadable(folder: Folder) -> None:
    folder.file().write_bytes(b"type: \xff\xfe")


@pytest.mark.parametrize("change", [removed, emptied, unreadable])
def test_without_a_valid_file_the_configuration_stays(
    folder: Folder, change: Callable[[Folder], None]
) -> None:
    """A file that is gone, empty or no text is a problem that names it; nothing else changes."""
    present = folder.open()
    change(folder)
    assert number_of(present()) == 1
    assert str(folder.root / "pipelines") in present.problem


def test_the_kept_text_is_private(folder: Folder) -> None:
    """It can hold secrets, as the file can."""
    folder.open()
    (kept,) = (folder.root / "data" / "valid_pipeline_files").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    assert kept.read_text() == text(1)
