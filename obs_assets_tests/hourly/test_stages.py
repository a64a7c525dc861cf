"""Hours that go through a stage together: they become what each becomes alone."""

import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from obs_assets.errors import (
    HourBusyError,
    MissingFrameError,
    ObsError,
    PermanentError,
    ReceiptError,
)
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES, Stage
from obs_assets.hourly.stages import Sizes
from obs_assets.hours import Hour
from obs_assets.receipts import Receipt
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR

EMPTY = HOUR.next.next
HOURS = (HOUR, HOUR.next, EMPTY, EMPTY.next)
EDGES = ("00:00.000000", "59:59.999999")


@pytest.fixture
def events_dir(tmp_path: Path) -> Path:
    """Events of three hours of four, among them the first and the last moment of each."""
    for hour in HOURS:
        if hour != EMPTY:
            edges = [
                {"type": "edge", "timestamp": f"{hour.start:%Y-%m-%dT%H}:{moment}Z"}
                for moment in EDGES
            ]
            harness.write_events(
                tmp_path / "events" / f"{hour.stamp}.jsonl", harness.an_hour(hour) + edges
            )
    return tmp_path / "events"


def landed(events_dir: Path, settings: Settings, **others: Any) -> HourlyPipeline:
    hourly = HourlyPipeline(harness.everything_kept(events_dir, **others), settings)
    if not hourly.landed().hours:
        hourly.land()
    return hourly


def frames(hourly: HourlyPipeline, stage: Stage) -> Mapping[Hour, Any]:
    return {hour: pq.read_table(hourly.store.frame_path(stage, hour)) for hour in HOURS}


def but_for_bytes(receipt: Receipt) -> Receipt:
    """How well a few columns can be packed depends on what was computed beside them."""
    return replace(receipt, size_bytes=0)


@pytest.mark.slow
@pytest.mark.parametrize("sample", [{}, {"strategy": "random", "error_rate": 0.5}])
def test_together_as_alone(
    events_dir: Path, settings: Settings, sample: dict[str, Any]
) -> None:
    """At every stage the same rows in the same order, and the same receipts, whatever lies beside an hour."""
    hourly = landed(
        events_dir,
        settings,
        sample=sample,
        filter={"drop_levels": ["debug"], "drop_low_value": True},
    )
    for stage in STAGES:
        alone = {hour: but_for_bytes(hourly.build(stage, hour)) for hour in HOURS}
        expected = frames(hourly, stage)
        together = hourly.build_together(stage, HOURS)
        assert {hour: but_for_bytes(receipt) for hour, receipt in together.items()} == alone
        assert [together[hour].unaccounted for hour in HOURS] == [0] * len(HOURS)
        assert together == {hour: hourly.store.read_receipt(stage, hour) for hour in HOURS}
        for hour, frame in frames(hourly, stage).items():
            assert frame.cast(expected[hour].schema).equals(expected[hour]), f"{stage} {hour}"
    is_kept = [receipt.kept > 0 for receipt in together.values()]
    assert not is_kept[2]
    assert any(is_kept)
    if not sample:
        # At random, none of the few events of an hour may be kept: the identity of the file decides.
        assert is_kept == [True, True, False, True]
    assert any(receipt.other for receipt in together.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "sample",
    [{"strategy": "adaptive", "adaptive_target": 2}, {"strategy": "tail"}, {"min_per_type": 3}],
)
def test_what_needs_the_whole_hour_is_drawn_hour_by_hour(
    events_dir: Path, settings: Settings, sample: dict[str, Any]
) -> None:
    """A sample that looks at all events of an hour must not see those of another."""
    hourly = landed(events_dir, settings, sample=sample)
    for stage in STAGES:
        built = hourly.build_together(stage, HOURS)
        assert list(built) == ([] if stage == "sampled_events" else list(HOURS))


@pytest.mark.slow
def test_one_bad_hour_leaves_the_others_whole(events_dir: Path, settings: Settings) -> None:
    """No frame, a damaged receipt, another run at it: such an hour is left out at once, and alone says what it has."""
    hourly = landed(events_dir, settings)
    hourly.build_together("raw_events", HOURS)
    hourly.store.frame_path("raw_events", HOURS[0]).unlink()
    hourly.store.receipt_path("raw_events", HOURS[1]).write_text("{")
    with hourly.locks.hold(HOURS[2], alone=False):
        assert list(hourly.build_together("enriched_events", HOURS)) == [HOURS[3]]
        with pytest.raises(HourBusyError), hourly.locks.hold(HOURS[2], alone=True, wait=False):
            pass
    with pytest.raises(MissingFrameError, match=HOURS[0].key):
        hourly.build("enriched_events", HOURS[0])
    with pytest.raises(ReceiptError, match="damaged"):
        hourly.build("enriched_events", HOURS[1])
    assert hourly.build("enriched_events", HOURS[2]).kept == 0


@pytest.mark.slow
def test_an_hour_of_large_events_is_built_in_parts(tmp_path: Path, settings: Settings) -> None:
    """Agents' events have tens of kilobytes: an hour that DuckDB cannot sort at once is the same in parts."""
    for file in range(4):
        events = [
            harness.at(
                HOUR,
                7 * n % 900,
                {"n": n, "mail": "jane@example.com", "text": f"{n} and so on, " * 2_000},
            )
            for n in range(file, 4_000, 4)
        ]
        harness.write_events(tmp_path / "events" / f"{file}.jsonl", events)
    hourly = landed(tmp_path / "events", settings, enrich={}, filter=None)
    whole = {
        stage: (hourly.build(stage, HOUR), pq.read_table(hourly.store.frame_path(stage, HOUR)))
        for stage in STAGES
    }
    little = Sizes(sorted_bytes=8 << 20, group_bytes=4 << 20, memory="192MB")
    in_parts = replace(hourly, sizes=little)
    for stage, (receipt, frame) in whole.items():
        with harness.cores(2):
            assert but_for_bytes(in_parts.build(stage, HOUR)) == but_for_bytes(receipt)
        path = hourly.store.frame_path(stage, HOUR)
        assert pq.read_table(path).equals(frame), stage
        groups = pq.read_metadata(path)
        sizes = [groups.row_group(n).total_byte_size for n in range(groups.num_row_groups)]
        assert max(sizes) < 6 << 20


def fails_in_the_second_hour(rows: pd.DataFrame) -> pd.DataFrame:
    """A function of a user's that cannot take some event."""
    if (rows["event_time"] >= HOURS[1].start).any() and (
        rows["event_time"] < HOURS[1].end
    ).any():
        raise KeyError("of the second hour")
    return rows


@pytest.mark.parametrize("damage", [b"", b"no Parquet" * 100_000])
def test_a_landed_chunk_that_is_lost_is_an_error_of_ours(
    events_dir: Path, settings: Settings, damage: bytes
) -> None:
    """Gone, or overwritten, however large: the hour fails in a sentence, without a traceback."""
    hourly = landed(events_dir, settings)
    for chunk in hourly.log.chunk_paths(hourly.landed().hour(HOUR)):
        chunk.write_bytes(damage) if damage else chunk.unlink()
    with pytest.raises(ObsError, match=r"^raw_events 2025-12-04-10:00: "):
        hourly.build("raw_events", HOUR)
    assert list(hourly.build_together("raw_events", HOURS)) == []


def fails_at_last(rows: pd.DataFrame) -> pd.DataFrame:
    """A function of a user's that cannot take the hour's last event."""
    if rows["event"].str.contains("the last one").any():
        raise KeyError("jane@example.com")
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("events", [10, 30_000])
def test_who_is_to_blame_is_told_however_late(
    tmp_path: Path, settings: Settings, events: int
) -> None:
    """What fails when half of an hour is written is no trouble with the disk; and nothing is left of the hour."""
    told = [harness.at(HOUR, n * 3_000 // events, {"n": n}) for n in range(events)]
    harness.write_events(
        tmp_path / "events" / "a.jsonl", [*told, harness.at(HOUR, 3_599, {"n": "the last one"})]
    )
    function = f"{__name__}.{fails_at_last.__name__}"
    hourly = landed(tmp_path / "events", settings, enrich={"function": function})
    hourly = replace(hourly, sizes=Sizes(group_rows=2_048))
    hourly.build("raw_events", HOUR)
    with pytest.raises(
        PermanentError, match=rf"^the function {function} raised KeyError; try it"
    ):
        hourly.build("enriched_events", HOUR)
    assert not list(hourly.store.frame_path("enriched_events", HOUR).parent.iterdir())


@pytest.mark.slow
def test_what_fails_together_counts_as_not_built(events_dir: Path, settings: Settings) -> None:
    """A function that fails on one event: no receipt is left of any hour, and alone all but one are built."""
    function = f"{__name__}.{fails_in_the_second_hour.__name__}"
    hourly = landed(events_dir, settings, enrich={"function": function})
    for hour in HOURS:
        hourly.build("raw_events", hour)
    hourly.store.write_receipt(
        replace(hourly.store.read_receipt("raw_events", HOUR), stage="enriched_events"), HOUR
    )
    assert hourly.build_together("enriched_events", HOURS) == {}
    assert hourly.store.find_receipt("enriched_events", HOUR) is None


@pytest.mark.slow
def test_nobody_gets_between_hours_that_are_built(events_dir: Path, settings: Settings) -> None:
    """Each is locked until all are there: a second run waits, and neither sees the other's half."""
    hourly = landed(events_dir, settings)
    done: list[Mapping[Hour, Receipt]] = []
    with hourly.locks.hold(HOURS[1], alone=False):
        thread = threading.Thread(
            target=lambda: done.append(hourly.build_together("raw_events", HOURS))
        )
        thread.start()
        thread.join()
    assert [hour for hour in HOURS if hour not in done[0]] == [HOURS[1]]


BUILD = """
import sys
from pathlib import Path

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import parse_hour
from obs_assets.settings import Settings

events_dir, data_dir, hour = sys.argv[1:]
config = PipelineConfig(source={"events_dir": events_dir})
hourly = HourlyPipeline(config, Settings(data_dir=Path(data_dir)))
for stage in STAGES:
    hourly.build(stage, parse_hour(hour))
print(*sys.modules)
"""
"""A program that builds an hour and prints which modules it has imported."""


@pytest.mark.slow
def test_a_build_imports_no_pandas(events_dir: Path, settings: Settings) -> None:
    """Stages do without pandas: its import takes as long as ten tiny hours."""
    landed(events_dir, settings)
    command = [sys.executable, "-c", BUILD, str(events_dir), str(settings.data_dir), HOUR.key]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = done.stdout.splitlines()[-1].split()
    assert "duckdb" in imported
    assert "pandas" not in imported
