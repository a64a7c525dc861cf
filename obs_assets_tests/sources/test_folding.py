"""Passes are folded into one record: the log stays small for years, and says the same as before."""

import shutil
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from obs_assets_tests.sources.place import Place, events
from obs_assets_tests.sources.test_landing import child_with, land_in_child


@pytest.fixture
def folding(tmp_path: Path) -> Place:
    """A place that folds every third pass."""
    return Place(tmp_path, fold_at=3)


def records(place: Place) -> list[str]:
    return sorted(path.name for path in place.log.root.glob("folded-*"))


@pytest.mark.slow
def test_folded_passes_say_what_they_said(folding: Place) -> None:
    """Hours, files and the account of every byte are the same, with or without the checkpoint; old records go."""
    lines: list[str] = []
    for number in range(1, 9):
        lines += folding.append("a.jsonl", events(2)) + folding.write(
            f"{number}.jsonl", events(1)
        )
        folding.append("a.jsonl", ["what?"])
        folding.land()
        state = folding.log.load()
        (folding.log.root / "checkpoint.json").unlink()
        assert folding.log.load() == state
        assert state.last_pass == number
    assert records(folding) == ["folded-00000006.json"]
    assert folding.audit().lines() == sorted(lines)
    (whole, *_), *_ = folding.receipts().values()
    assert whole.start == 0
    assert [
        one.dead_letters
        for one in next(folding.log.passes()).files
        if one.file.path == "a.jsonl"
    ] == [6]
    assert next(folding.log.passes()).dead_letters == {"not_json": 6}


@pytest.mark.slow
def test_an_older_checkpoint_is_no_way_back(folding: Place) -> None:
    """A copy of the checkpoint from before the folding does not hide what has landed since."""
    lines = folding.write("a.jsonl", events(2))
    folding.land()
    shutil.copy(folding.log.root / "checkpoint.json", folding.root / "old")
    folding.append("a.jsonl", ["what?"])  # a pass without a chunk leaves no pass.json
    folding.land()
    for _ in range(2):
        lines += folding.append("a.jsonl", events(1))
        folding.land()
    shutil.copy(folding.root / "old", folding.log.root / "checkpoint.json")
    lines += folding.append("a.jsonl", events(1))
    folding.land()
    assert folding.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_killed_while_it_folds(place: Place) -> None:
    """Between the record and the removal of what is in it: nothing is counted twice, and the next pass tidies up."""
    lines = place.write("a.jsonl", events(2))
    place.land()
    lines += place.append("a.jsonl", events(2))
    killed = land_in_child(place, child_with("fold_at=2"), OBS_CRASH_AT="fold.after_record")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    place.now += timedelta(minutes=5)
    assert records(place) == ["folded-00000002.json"]
    assert place.audit().lines() == sorted(lines)
    lines += place.append("a.jsonl", events(2))
    place.land()
    place.fold_at = 1
    place.log.fold(place.log.load())
    assert records(place) == ["folded-00000003.json"]
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_a_pass_that_brought_nothing_leaves_nothing(folding: Place) -> None:
    """What only separators or dead letters came of is in the record alone; dead letters stay."""
    folding.write("a.jsonl", ["what?"])
    folding.land()
    for _ in range(3):
        folding.append("a.jsonl", [""])
        folding.land()
    assert [path.name for path in folding.log.passes_dir.rglob("*") if path.is_file()] == [
        "dead_letters.parquet",
        "pass.json",
    ]
    assert folding.audit().dead() == [("not_json", b"what?\n")]
