"""The sample files: the same every time, and landing makes of them what their writer counted."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from obs_assets.demo.samples import FILES, Planted, write_samples
from obs_assets.hours import Hour
from obs_assets.sources.files import SourceConfig
from obs_assets.sources.landing import LandingReport, land
from obs_assets.sources.log import LandingLog

FIRST = Hour(datetime(2025, 12, 3, 20, tzinfo=UTC))
NOW = datetime(2025, 12, 4, 5, 17, tzinfo=UTC)


def landed(tmp_path: Path, hours: int = 9) -> tuple[Planted, LandingReport]:
    planted = write_samples(tmp_path / "events", FIRST, hours)
    source = SourceConfig(events_dir=tmp_path / "events")
    first_hour = Hour(FIRST.start - timedelta(days=30))
    return planted, land(
        source, LandingLog(tmp_path / "landed"), first_hour=first_hour, now=NOW
    )


@pytest.mark.slow
def test_every_event_lands_in_the_hour_it_was_written_for(tmp_path: Path) -> None:
    """Events by hour are those counted; one without a time is of the hour of the landing."""
    planted, report = landed(tmp_path)
    assert len(planted.hours) == 9
    assert report.hours == {**planted.hours, Hour.of(NOW).key: planted.untimed}


@pytest.mark.slow
def test_what_is_damaged_becomes_dead_letters(tmp_path: Path) -> None:
    """Dead letters by reason are those counted, and the unfinished last line is not one of them yet."""
    planted, report = landed(tmp_path)
    assert dict(sorted(report.dead_letters.items())) == planted.dead_letters
    assert planted.unfinished == 1
    assert report.files_read == len(FILES)
    assert not report.warnings


@pytest.mark.slow
def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    """Seed and first hour decide every byte."""
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    assert write_samples(one, FIRST) == write_samples(two, FIRST)
    write_samples(other, FIRST, seed=2)
    for name in FILES:
        assert (one / name).read_bytes() == (two / name).read_bytes()
        assert (one / name).read_bytes() != (other / name).read_bytes()


def test_every_planted_value_stands_in_the_files(tmp_path: Path) -> None:
    """A search for a value that was never written would find nothing and prove nothing."""
    planted = write_samples(tmp_path, FIRST)
    import gzip

    text = b"".join(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in tmp_path.iterdir()
    ).decode(errors="replace")
    assert len(planted.personal) == len(set(planted.personal)) == 27 * 7
    assert not [value for value in planted.personal if value not in text]
