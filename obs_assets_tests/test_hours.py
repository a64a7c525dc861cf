"""Hours are half-open UTC intervals with Dagster's keys."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_assets.errors import ConfigurationError
from obs_assets.hours import (
    Hour,
    first_open_hour,
    floor_to_hour,
    hours_between,
    parse_hour,
    parse_hours,
)

TEN = Hour(datetime(2031, 5, 6, 10, tzinfo=UTC))

moments = st.datetimes(datetime(2000, 1, 2), datetime(2100, 1, 1), timezones=st.timezones())  # noqa: DTZ001


def test_an_hour_has_names_and_neighbours() -> None:
    """Key and stamp are those of the start; hours touch without overlap."""
    assert (TEN.key, str(TEN), TEN.stamp) == (
        "2031-05-06-10:00",
        "2031-05-06-10:00",
        "2031050610",
    )
    assert TEN.end == datetime(2031, 5, 6, 11, tzinfo=UTC) == TEN.next.start
    assert TEN.next.previous == TEN
    assert Hour(datetime(2031, 12, 31, 23, tzinfo=UTC)).next.key == "2032-01-01-00:00"


@pytest.mark.parametrize(
    "start",
    [
        datetime(2031, 5, 6, 10),  # noqa: DTZ001
        datetime(2031, 5, 6, 10, 30, tzinfo=UTC),
        datetime(2031, 5, 6, 10, 0, 0, 1, tzinfo=UTC),
        datetime(2031, 5, 6, 10, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_nothing_else_is_an_hour(start: datetime) -> None:
    """A start without a timezone, in another one, or off the hour is refused."""
    with pytest.raises(ValueError, match="not the start of a UTC hour"):
        Hour(start)


@pytest.mark.slow
@given(moments)
def test_every_moment_is_in_one_hour(moment: datetime) -> None:
    """start <= moment < end, in whatever timezone the moment is told."""
    hour = Hour.of(moment)
    assert hour.start <= moment < hour.end
    assert Hour.of(hour.start) == hour
    assert Hour.of(hour.end) == hour.next


@given(moments)
def test_keys_read_back(moment: datetime) -> None:
    """A key is read as the hour that wrote it, and keys and stamps sort as their hours do."""
    hour = Hour.of(moment)
    assert parse_hour(hour.key) == hour
    assert hour.key < hour.next.key
    assert hour.stamp < hour.next.stamp


def test_flooring_keeps_the_timezone() -> None:
    """A moment with a half-hour offset is floored where it is."""
    moment = datetime(
        2031, 5, 6, 10, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=30))
    )
    assert floor_to_hour(moment).isoformat() == "2031-05-06T10:00:00+05:30"
    assert Hour.of(moment).key == "2031-05-06-05:00"


@pytest.mark.parametrize(
    "text",
    ["", "2031-05-06", "2031-05-06-10:30", "2031-05-06T10:00", "2031-02-30-10:00", "ten"],
)
def test_other_texts_are_explained(text: str) -> None:
    """The message says how an hour is written."""
    with pytest.raises(
        ConfigurationError, match=r"is not an hour; write it as Dagster does, for example"
    ):
        parse_hour(text)
    if text != "2031-05-06":
        with pytest.raises(ConfigurationError, match=r"is not an hour"):
            parse_hours(f"2031-05-06-10:00...{text}")


def test_ranges_hold_both_ends() -> None:
    """A...B is what Dagster's partition ranges are; one hour is a range of its own; backwards is refused."""
    assert [hour.key for hour in parse_hours("2031-05-06-23:00...2031-05-07-01:00")] == [
        "2031-05-06-23:00",
        "2031-05-07-00:00",
        "2031-05-07-01:00",
    ]
    assert parse_hours(TEN.key) == parse_hours(f"{TEN.key}...{TEN.key}") == [TEN]
    with pytest.raises(ConfigurationError, match="runs backwards"):
        parse_hours(f"{TEN.key}...{TEN.previous.key}")


def test_a_day_is_its_hours() -> None:
    """A day stands for its 24 hours, alone and at either end of a range; one that is not in the calendar is refused."""
    day = [f"2031-05-06-{hour:02}:00" for hour in range(24)]
    assert [hour.key for hour in parse_hours("2031-05-06")] == day
    assert [hour.key for hour in parse_hours("2031-05-06...2031-05-06")] == day
    assert [hour.key for hour in parse_hours("2031-05-06-22:00...2031-05-07")][:3] == [
        *day[22:],
        "2031-05-07-00:00",
    ]
    assert [hour.key for hour in parse_hours("2031-05-05...2031-05-06-01:00")][-2:] == day[:2]
    for wrong in ("2031-02-30", "2031-05", "2031-05-07...2031-05-06"):
        with pytest.raises(ConfigurationError):
            parse_hours(wrong)


def test_hours_between_leaves_out_the_stop() -> None:
    """From the first up to the stop; nothing if there is nothing between."""
    assert list(hours_between(TEN, TEN.next.next)) == [TEN, TEN.next]
    assert list(hours_between(TEN, TEN)) == list(hours_between(TEN, TEN.previous)) == []


@pytest.mark.parametrize(
    ("began_after_end", "is_closed"),
    [
        (timedelta(minutes=5), True),
        (timedelta(minutes=5) - timedelta(microseconds=1), False),
        (timedelta(), False),
    ],
)
def test_an_hour_closes_after_its_lateness(began_after_end: timedelta, is_closed: bool) -> None:
    """A pass closes the hours whose end plus the allowed lateness lies before its beginning."""
    assert (first_open_hour(TEN.end + began_after_end, timedelta(minutes=5)) > TEN) == is_closed
