"""What has landed decides every frame, not the number of threads or processes, nor how landed rows lie in files."""

import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hourly.stages import Sizes
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR
from obs_assets_tests.transforms.test_redact import LOOK_ALIKES, VALUES

EVENTS = 12_000
GROUP = 2_048
"""The least that DuckDB makes of a row group: with so few rows, both threads have something to do at every stage."""


@pytest.fixture(scope="module")
def events_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files; half of the events hold something personal, many happen in the same second, some are equal."""
    r = random.Random(4)
    texts = [text for _, text, _ in VALUES] + list(LOOK_ALIKES)
    folder = tmp_path_factory.mktemp("events")
    for file in range(3):
        with (folder / f"{file}.jsonl").open("w") as handle:
            for _ in range(EVENTS // 3):
                event = {
                    "timestamp": f"2025-12-04T10:{r.randrange(60):02d}:00.000Z",
                    "type": r.choice(["llm_call", "task_failed", "http_request", "tool_error"]),
                    "level": r.choice(["info", "error", "warning"]),
                    "trace_id": f"trace-{r.randrange(6_000)}",
                    "session_id": f"session-{r.randrange(50)}",
                    "duration_ms": r.randrange(5_000),
                    "message": r.choice(texts) if r.random() < 0.5 else "all checks passed",
                    "data": {
                        "tags": [r.choice(texts)],
                        "contact": {"email": f"ana{r.randrange(99)}@example.com"},
                    },
                }
                handle.write(json.dumps(event, ensure_ascii=r.random() < 0.5) + "\n")
    return folder


def frames(
    data_dir: Path,
    events_dir: Path,
    threads: int,
    sample: dict[str, object],
) -> dict[str, pa.Table]:
    """Every frame of the landed hour, built on so many cores."""
    config = harness.everything_kept(
        events_dir, sample=sample, redact={"modes": {"ip_address": "hash"}}
    )
    hourly = HourlyPipeline(
        config,
        Settings(data_dir=data_dir, hash_key=SecretStr("a long random text")),
        sizes=Sizes(group_rows=GROUP, workers_from=1),
    )
    if not hourly.landed().hours:
        hourly.land()
    with harness.cores(threads):
        for stage in STAGES:
            hourly.build(stage, HOUR)
    paths = {stage: hourly.store.frame_path(stage, HOUR) for stage in STAGES}
    assert pq.ParquetFile(paths["enriched_events"]).num_row_groups > 1
    return {stage: pq.read_table(path) for stage, path in paths.items()}


def shuffle(data_dir: Path) -> None:
    """Write the landed chunks anew, their rows in another order and in other row groups."""
    chunks = [path for path in data_dir.rglob("landed/**/*.parquet") if path.name[0].isdigit()]
    assert chunks
    for chunk in chunks:
        rows = pq.read_table(chunk)
        order = list(range(rows.num_rows))
        random.Random(9).shuffle(order)
        pq.write_table(rows.take(order), chunk, row_group_size=1_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sample",
    [
        {"strategy": "random", "success_rate": 0.3, "min_per_type": 5},
        {"strategy": "adaptive", "adaptive_target": 100},
        {"strategy": "tail", "tail_duration_ms": 4_900},
    ],
    ids=lambda sample: str(sample["strategy"]),
)
def test_threads_and_the_order_of_landed_rows_change_nothing(
    events_dir: Path, tmp_path: Path, sample: dict[str, object]
) -> None:
    """One thread, two threads, two threads over shuffled chunks: the same rows in the same order at every stage."""
    alone = frames(tmp_path / "a", events_dir, 1, sample)
    assert 0 < alone["sampled_events"].num_rows < alone["redacted_events"].num_rows == EVENTS
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shuffle(tmp_path / "b")
    for data_dir in (tmp_path / "a", tmp_path / "b"):
        together = frames(data_dir, events_dir, 2, sample)
        for stage in STAGES:
            assert together[stage].cast(alone[stage].schema).equals(alone[stage]), stage
