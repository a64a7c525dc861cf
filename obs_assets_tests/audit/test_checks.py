"""When checks warn, and what they say."""

from dataclasses import replace

import pytest

from obs_assets.audit.checks import (
    all_redacted,
    dead_letter_share,
    destinations_agree,
    nothing_left,
    receipt_adds_up,
    schema_drift,
    volume,
)
from obs_assets.destinations.base import Holding
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.receipts import InputVersion, Receipt
from obs_assets.settings import Settings

VERSION = InputVersion(3, "c", "1")
RECEIPT = Receipt(
    "2025-12-04-10:00",
    "sampled_events",
    VERSION,
    10,
    7,
    {"filtered:level": 3},
    content_hash="abc",
)
HELD = Holding(VERSION, 7, "abc", counted=7)


def test_a_receipt_is_read_out() -> None:
    """The sentence is the sum, and says how many events are nowhere."""
    assert receipt_adds_up(RECEIPT).sentence == "10 taken = 7 kept + 3 set aside."
    lost = receipt_adds_up(replace(RECEIPT, kept=6))
    assert not lost.passed
    assert "10 taken ≠ 6 kept + 3 set aside: 1 unaccounted for" in lost.sentence


@pytest.mark.parametrize(("dead", "passed"), [(0, True), (10, True), (11, False)])
def test_dead_letters_above_the_limit_are_told(dead: int, *, passed: bool) -> None:
    """One per cent is well, more is not, and nothing of nothing is well."""
    found = dead_letter_share(dead, 1000, 0.01, "records")
    assert found.passed == passed
    assert f"{dead} of 1,000 records" in found.sentence
    assert ("obs dead-letters list" in found.sentence) != passed
    assert dead_letter_share(0, 0, 0.0, "records").passed


def test_the_command_for_dead_letters_names_the_pipeline(settings: Settings) -> None:
    """A command that is copied from a sentence lists the dead letters of the pipeline that it is about."""
    pipelines = [
        HourlyPipeline(PipelineConfig(), settings, name) for name in ("pipeline", "audit")
    ]
    commands = [pipeline.command("obs dead-letters list") for pipeline in pipelines]
    assert commands == ["obs dead-letters list", "obs dead-letters list --pipeline audit"]
    found = dead_letter_share(1, 2, 0.01, "records", commands[1])
    assert f"see `{commands[1]}`" in found.sentence


@pytest.mark.parametrize(("failed", "passed"), [(0, True), (1, False), (1_000_000, False)])
def test_one_event_that_cannot_be_redacted_is_grave(failed: int, *, passed: bool) -> None:
    """An hour is right or it is red: one event of a million is enough, and the sentence says where to look."""
    found = all_redacted(failed, 1_000_000)
    assert found.passed == passed
    assert found.is_grave == (not passed)
    assert (f"{failed:,} of 1,000,000 events could not be redacted" in found.sentence) == (
        not passed
    )
    assert ("obs dead-letters show" in found.sentence) == (not passed)


@pytest.mark.parametrize(
    ("rows", "before", "same_hour", "passed"),
    [
        (1000, [1000] * 24, [1000] * 14, True),
        (
            1400,
            [1000] * 24,
            [1000] * 14,
            True,
        ),  # even traffic: not within 5 of 0 deviations, but within half of it
        (1600, [1000] * 24, [1000] * 14, False),
        (0, [1000] * 24, [1000] * 14, False),
        (300, [1000] * 24, [290, 310] * 7, True),  # a quiet hour of the day
        (3000, [2900, 3100] * 12, [1000] * 14, True),  # a busy day
        (3, [1, 4, 0, 2, 6, 1, 2, 3], [], True),  # few events vary by themselves
        (
            9000,
            [1000] * 23 + [50_000],
            [1000] * 14,
            False,
        ),  # one odd hour before does not make the next usual
        (0, [1000] * 6, [1000] * 6, True),  # too little is known
    ],
)
def test_an_unusual_number_of_events_is_told(
    rows: int, before: list[int], same_hour: list[int], *, passed: bool
) -> None:
    """An hour stands out if it does so among the hours before it and among the same hours of the days before."""
    assert volume(rows, before, same_hour, 5.0).passed == passed


def test_a_new_field_and_a_changed_type_are_listed() -> None:
    """By path and types; null, and what is missing, are no change."""
    earlier = [
        {"a": "number", "b": "string", "n": "null", "gone": "string"},
        {"a": "null"},
        {"c[].d": "number|string"},
    ]
    assert schema_drift(
        {"a": "number", "b": "null|string", "n": "object", "c[].d": "string"}, earlier
    ).passed
    drift = schema_drift({"a": "number|string", "b": "string", "new.er": "boolean"}, earlier)
    assert not drift.passed
    assert (
        drift.sentence
        == "1 field is new and 1 field is of another type than before: new.er, a."
    )
    assert drift.facts["new fields"] == "new.er (boolean)"
    assert drift.facts["changed fields"] == "a (number → number|string)"


def test_what_is_left_is_listed() -> None:
    """The most first, three in the sentence; what could not be looked into is no clean bill of health."""
    left = {"email at a": 1, "phone at b": 3, "ssn at c": 2, "iban at d": 1}
    found = nothing_left(10, left, 0, "2025-12-04-10:00")
    assert (found.passed, found.is_grave) == (False, True)
    assert (
        "10 redacted events: 3 phone at b; 2 ssn at c; 1 email at a. `obs scan 2025-12-04"
        in found.sentence
    )
    assert (
        found.facts["leftovers"]
        == "- 3 `phone at b`\n- 2 `ssn at c`\n- 1 `email at a`\n- 1 `iban at d`"
    )
    assert nothing_left(10, {}, 0, "").passed
    assert not nothing_left(10, {}, 1, "").passed


def test_new_fields_are_not_told_before_fields_are_known() -> None:
    """A new pipeline does not warn of everything."""
    assert schema_drift({"a": "number"}, [{"b": "string"}] * 2).passed
    assert not schema_drift({"a": "number"}, [{"b": "string"}] * 3).passed


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (None, "s3_archive does not hold the hour: materialize it again."),
        (
            replace(HELD, version=InputVersion(2, "c", "1")),
            "its ledger names landing generation 2, the frame 3",
        ),
        (
            replace(HELD, content_hash="other"),
            "its ledger names other content than the frame has",
        ),
        (
            replace(HELD, rows=6, counted=6),
            "its ledger names 6 rows, but sampled_events has 7",
        ),
        (replace(HELD, counted=5), "its ledger names 7 rows, but it holds 5"),
    ],
)
def test_a_destination_that_disagrees_is_told(held: Holding | None, said: str) -> None:
    """What the ledger, the rows that are there and the frame's receipt say must be the same."""
    assert destinations_agree("s3_archive", RECEIPT, HELD, takes_all=True).passed
    found = destinations_agree("s3_archive", RECEIPT, held, takes_all=True)
    assert not found.passed
    assert said in found.sentence


def test_a_destination_may_take_a_part() -> None:
    """A webhook holds the rows that match a rule: its ledger counts those."""
    alerts = replace(HELD, rows=2, counted=2)
    assert destinations_agree("webhook_alerts", RECEIPT, alerts, takes_all=False).passed
    assert not destinations_agree(
        "webhook_alerts", RECEIPT, replace(alerts, counted=1), takes_all=False
    ).passed
