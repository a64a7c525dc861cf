"""`obs scan`: whatever redaction should have removed is found where it lies, by type and path, and never shown."""

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from obs_assets.audit.leftovers import Leftover, Scanner
from obs_assets.audit.scan import MOST_PATHS, OTHER_PATHS, Leaks, scan, scope
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import Settings
from obs_assets.transforms.redact import RedactConfig
from obs_assets_tests import harness
from obs_assets_tests.audit.test_verify import in_file, in_frame, in_postgres, in_s3, truncated
from obs_assets_tests.detecting import only
from obs_assets_tests.frames import HOUR

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

STORES = ("redacted_events", "sampled_events", "postgres_events", "s3_archive")


@pytest.fixture(scope="module")
def places(
    servers: Settings,
    postgres_admin: "psycopg.Connection[tuple[object]]",
    s3_admin: "S3Client",
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], HourlyPipeline]]:
    """Makes pipelines with an hour that is whole everywhere."""
    with contextlib.ExitStack() as stack:

        def make() -> HourlyPipeline:
            folder = tmp_path_factory.mktemp("scan")
            place = stack.enter_context(
                harness.own_place(servers, postgres_admin, s3_admin, folder / "data")
            )
            return built(folder, place)

        yield make


@pytest.fixture(scope="module")
def hour(places: Callable[[], HourlyPipeline]) -> HourlyPipeline:
    """One for those who only look."""
    return places()


@pytest.fixture(scope="module")
def leaky(places: Callable[[], HourlyPipeline]) -> HourlyPipeline:
    """One with a leak in each of its stores."""
    hourly = places()
    for leak, _ in LEAKS.values():
        leak(hourly)
    return hourly


def built(folder: Path, settings: Settings) -> HourlyPipeline:
    harness.write_events(
        folder / "events" / "a.jsonl", harness.an_hour() + harness.an_hour(HOUR.next)
    )
    hourly = HourlyPipeline(harness.everything_kept(folder / "events"), settings)
    hourly.land()
    harness.build(hourly, HOUR)
    return hourly


def found(hourly: HourlyPipeline, *places: str, sample: int | None = None) -> dict[str, Leaks]:
    return {findings.store: findings for findings in scan(hourly, HOUR, places, sample)}


def left(hourly: HourlyPipeline) -> dict[str, dict[Leftover, int]]:
    return {
        store: dict(findings.leftovers)
        for store, findings in found(hourly).items()
        if not findings.ok
    }


def one_line_leaks(body: bytes) -> bytes:
    return gzip.compress(
        gzip.decompress(body).replace(b'"task": 3', b'"task": 3, "who": "ana@example.com"')
    )


LEAKS: dict[str, tuple[Callable[[HourlyPipeline], object], dict[Leftover, int]]] = {
    "redacted_events": (
        in_frame(
            "redacted_events",
            "SELECT * REPLACE (replace(event, 'ask ', '123-45-6789 ') AS event) FROM frame",
        ),
        {Leftover("ssn", "data.note"): 20},
    ),
    "sampled_events": (
        in_frame("sampled_events", "SELECT * REPLACE ('from 10.1.2.3' AS error) FROM frame"),
        {Leftover("ip_address", "column error"): 28},
    ),
    "postgres_events": (
        in_postgres(
            "UPDATE events SET data = jsonb_set(data, '{data,by}', '[\"+1 212 555 0123\"]') WHERE event_id = 'evt-7'"
        ),
        {Leftover("phone", "data.by.*"): 1},
    ),
    "s3_archive": (in_s3(one_line_leaks), {Leftover("email", "data.who"): 1}),
}


@pytest.mark.slow
def test_an_hour_that_is_redacted_is_green(hour: HourlyPipeline) -> None:
    """Everywhere, with the events that were looked at; the events before redaction are full of it."""
    assert {
        store: (findings.events, findings.ok) for store, findings in found(hour).items()
    } == {
        "redacted_events": (34, True),
        "sampled_events": (28, True),
        "postgres_events": (28, True),
        "s3_archive": (28, True),
    }
    assert str(found(hour, "s3")["s3_archive"]) == "28 events, nothing left"


@pytest.mark.slow
def test_a_leftover_is_found_where_it_lies(leaky: HourlyPipeline) -> None:
    """By type, path and number, each in its store alone."""
    assert left(leaky) == {store: expected for store, (_, expected) in LEAKS.items()}


@pytest.mark.slow
def test_an_hour_that_the_redactor_left_alone_is_red_everywhere(
    settings: Settings, tmp_path: Path
) -> None:
    """A redactor without rules passes its own tests of counts; the scan sees what it let through."""
    with only():
        hourly = built(tmp_path, settings)
    assert {store: findings.by_type for store, findings in found(hourly).items()} == {
        store: {"email": 20, "ip_address": 5, "phone": 5} for store in STORES
    }


def is_staff(badge: str) -> bool:
    return badge.endswith("1")


def test_patterns_of_ones_own_are_looked_for_as_they_are_redacted(hour: HourlyPipeline) -> None:
    """With flags and validators, built-in or one's own; but for those that are kept."""
    patterns = [
        {
            "name": "badge",
            "regex": r"emp-\d+",
            "flags": "gi",
            "validator": f"{__name__}.is_staff",
        },
        {"name": "card", "regex": r"\d{16}", "validator": "luhn"},
        {"name": "room", "regex": r"R\d"},
    ]
    redact = RedactConfig.model_validate(
        {"patterns": patterns, "modes": {"room": "keep", "phone": "keep"}}
    )
    config = hour.config.model_copy(update={"redact": redact})
    scanner = Scanner(scope(HourlyPipeline(config, hour.settings)))
    event = {
        "a": "EMP-11 R2",
        "b": "EMP-12",
        "c": "n4111111111111111",
        "d": "n4111111111111112",
        "p": "+12125550123",
    }
    assert scanner.event(json.dumps(event)) == [Leftover("badge", "a"), Leftover("card", "c")]


def test_places_are_chosen_by_kind_or_by_name(hour: HourlyPipeline) -> None:
    """In the order of the flow; one that does not exist is named, with those that do."""
    assert list(found(hour, "s3", "parquet")) == [
        "redacted_events",
        "sampled_events",
        "s3_archive",
    ]
    assert list(found(hour, "postgres_events")) == ["postgres_events"]
    with pytest.raises(
        ConfigurationError,
        match=r"'raw_events' is no place to scan; there are parquet, postgres, s3",
    ):
        found(hour, "raw_events")


@pytest.mark.slow
def test_a_sample_is_the_same_at_every_scan(leaky: HourlyPipeline) -> None:
    """So many events and no more; a larger one holds the smaller ones."""
    of_all = [found(leaky, "postgres", sample=size)["postgres_events"] for size in range(1, 29)]
    assert [findings.events for findings in of_all] == list(range(1, 29))
    assert sorted(findings.ok for findings in of_all) == [
        findings.ok for findings in reversed(of_all)
    ]
    assert not of_all[-1].ok


@pytest.mark.slow
def test_a_store_that_cannot_be_read_is_a_finding(places: Callable[[], HourlyPipeline]) -> None:
    """A frame that is damaged, an hour never built, an event that is no JSON; ten thousand paths are summed up."""
    hour = places()
    in_file("sampled_events", truncated)(hour)
    in_frame("redacted_events", "SELECT * REPLACE (event[:-20] AS event) FROM frame LIMIT 3")(
        hour
    )
    said = {store: str(findings) for store, findings in found(hour).items() if not findings.ok}
    assert said == {
        "redacted_events": "3 events, left: 3 events that cannot be searched",
        "sampled_events": "its events cannot be read (InvalidInputException)",
    }
    wide = json.dumps({f"k{number}": "ana@example.com" for number in range(10 * MOST_PATHS)})
    in_frame("redacted_events", f"SELECT * REPLACE ('{wide}' AS event) FROM frame LIMIT 1")(
        hour
    )
    findings = found(hour, "redacted_events")["redacted_events"]
    assert len(findings.leftovers) == MOST_PATHS + 1, (
        "keys are anybody's text, and what is said must be bounded"
    )
    assert findings.leftovers[Leftover("email", OTHER_PATHS)] == 9 * MOST_PATHS
    assert findings.by_type == {"email": 10 * MOST_PATHS}
    never = {findings.store: str(findings) for findings in scan(hour, HOUR.next, ["parquet"])}
    assert (
        never["redacted_events"]
        == f"redacted_events has no hour {HOUR.next}: materialize redacted_events for it first"
    )


def test_without_redaction_there_is_nothing_to_scan(hour: HourlyPipeline) -> None:
    """It is said, instead of a list of all that the events hold."""
    off = hour.config.model_copy(
        update={"redact": RedactConfig(enabled=False, allow_unredacted=True)}
    )
    with pytest.raises(ConfigurationError, match="redaction is off"):
        list(scan(HourlyPipeline(off, hour.settings), HOUR))


@pytest.mark.slow
def test_the_command_prints_types_and_paths_never_values(
    hour: HourlyPipeline, leaky: HourlyPipeline, tmp_path: Path
) -> None:
    """Exit 0 for a clean hour, 1 for a finding, 2 for a place that does not exist; `--json` for scripts."""
    key, clean = HOUR.key, harness.environment(hour.settings, tmp_path / "events")
    env = harness.environment(leaky.settings, tmp_path / "events")
    assert harness.run("obs", "scan", key, "--in", "s3", "--sample", "5", env=clean).code == 0
    said = harness.run("obs", "scan", f"{key}...{key}", "--in", "s3", env=env)
    assert said.code == 1
    assert "28 events, left: 1 email" in said.out
    assert "data.who" in said.out
    assert "ana@" not in said.said
    parsed: list[dict[str, Any]] = json.loads(
        harness.run("obs", "scan", key, "--in", "s3", "--json", env=env).out
    )
    assert parsed[0]["leftovers"] == [{"type": "email", "path": "data.who", "count": 1}]
    wrong = harness.run("obs", "scan", key, "--in", "kafka", env=env)
    assert (wrong.code, "no place to scan" in wrong.err) == (2, True)
