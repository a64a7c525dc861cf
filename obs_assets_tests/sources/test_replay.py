"""Dead letters, read once more."""

from pathlib import Path

import pytest

from obs_assets.hours import parse_hour
from obs_assets.sources.files import SourceConfig
from obs_assets.sources.landing import BatchSizes, LandingReport
from obs_assets.sources.replay import count_letters, open_letters, replay
from obs_assets_tests.dying import DiedError, dies_at
from obs_assets_tests.sources.place import START, Place, event, events, text

LONG = "x" * 3000


def again(place: Place, **options: object) -> LandingReport:
    """A replay, with the limits that a landing pass has by default."""
    return replay(SourceConfig(), place.log, first_hour=START, now=place.now, **options)  # type: ignore[arg-type]


def long_events(place: Place) -> list[str]:
    """Land three events, of which one is too long, beside a line of garbage that stays what it is."""
    lines = place.write("a.jsonl", [event(), event(filler=LONG), "what?", event()])
    place.land(max_event_bytes=1024)
    return [lines[0], lines[1], lines[3]]


def test_what_can_be_read_by_now_is_landed(place: Place) -> None:
    """With a higher limit the long event is an event, where it always was; garbage stays a dead letter."""
    lines = long_events(place)
    report = again(place)
    assert (sum(report.hours.values()), report.dead_letters) == (1, {"too_long": -1})
    assert place.audit().lines() == sorted(lines)
    (row,) = [row for row in place.rows() if row["line"] == lines[1]]
    assert row["file_offset"] == len(text(lines[:1]))
    assert [letter.reason for letter in open_letters(place.log)] == ["not_json"]


def test_once_only(place: Place) -> None:
    """A second replay finds nothing, nor does a landing pass."""
    lines = long_events(place)
    again(place)
    assert again(place).number is None
    assert place.land().number is None
    assert place.audit().lines() == sorted(lines)


def test_counts_add_up_over_all_passes(place: Place) -> None:
    """Every byte of the file is still an event's, a dead letter's or a separator, and counted once."""
    long_events(place)
    again(place)
    (receipts,) = place.receipts().values()
    assert sum(receipt.events for receipt in receipts) == 3
    assert sum(receipt.dead_letters for receipt in receipts) == 1
    until_last_event = len(place.path("a.jsonl").read_bytes().rstrip(b"\n"))
    assert (
        sum(r.event_bytes + r.dead_bytes + r.separator_bytes for r in receipts)
        == until_last_event
    )
    ((_, reason, letters, length, _),) = count_letters(place.log)
    assert (reason, letters, length) == (
        "not_json",
        1,
        sum(receipt.dead_bytes for receipt in receipts),
    )


def test_pieces_of_one_line(place: Place) -> None:
    """A line of which several batches and passes made dead letters becomes one event again."""
    place.sizes = BatchSizes(largest=2048)
    lines = place.write("a.jsonl", [event(filler=LONG * 4), event()])
    place.land(max_event_bytes=1024)
    assert len(list(open_letters(place.log))) > 1
    again(place)
    assert place.audit().lines() == sorted(lines)
    assert list(open_letters(place.log)) == []


def test_by_reason_and_file(place: Place) -> None:
    """Only what was asked for is read again."""
    for name in "ab":
        place.write(f"{name}.jsonl", [event(filler=LONG)])
    place.land(max_event_bytes=1024)
    assert again(place, reason="not_json").number is None
    assert sum(again(place, event_file="a.jsonl").hours.values()) == 1
    assert [letter.event_file for letter in open_letters(place.log)] == ["b.jsonl"]


@pytest.mark.slow
def test_an_earlier_start_brings_old_events_back(place: Place) -> None:
    """What happened before the first hour lands once the first hour is an earlier one; first seen stays first seen."""
    old = event(START.previous.start)
    place.write("a.jsonl", [old])
    place.land()
    (letter,) = open_letters(place.log)
    assert (letter.reason, letter.first_seen) == ("before_start", place.now)
    assert again(place).number is None
    earlier = parse_hour("2030-01-01-00:00")
    assert replay(SourceConfig(), place.log, first_hour=earlier, now=place.now).hours == {
        START.previous.key: 1
    }
    assert place.lines() == [old]


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["landing.before_chunk", "landing.after_chunk", "landing.before_commit"]
)
def test_a_replay_that_dies_has_not_been(place: Place, point: str) -> None:
    """Events and the mark on their letters appear together or not at all."""
    lines = long_events(place)
    with dies_at(point), pytest.raises(DiedError):
        again(place)
    assert len(list(open_letters(place.log))) == 2
    assert len(place.lines()) == 2
    again(place)
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_a_lost_checkpoint_forgets_no_replay(place: Place) -> None:
    """The passes say which letters were landed."""
    lines = long_events(place)
    again(place)
    (place.log.root / "checkpoint.json").unlink()
    assert again(place).number is None
    lines += place.append("a.jsonl", events(2))
    place.land()
    assert place.audit().lines() == sorted(lines)


def test_letters_lie_beside_what_has_landed(place: Place) -> None:
    """They may be personal: nobody but the owner can read them."""
    long_events(place)
    again(place)
    folder: Path
    for folder in place.log.passes_dir.iterdir():
        assert folder.stat().st_mode & 0o077 == 0
