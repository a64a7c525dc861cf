"""One event by its id, and its neighbours in time."""

from dataclasses import replace
from datetime import timedelta
from typing import Literal

import pytest

from obs_assets.errors import ConfigurationError, TransientError
from obs_assets.search.language import EVERYTHING, parse
from obs_assets.search.questions import (
    FoundEvent,
    Position,
    context_of,
    find_event,
    list_events,
)
from obs_assets_tests.search.conftest import WHOLE, Stored


def every_event(stored: Stored, query: str = "") -> tuple[FoundEvent, ...]:
    """The events from the oldest on."""
    found = list_events(
        stored.connection, stored.tables.events, parse(query), WHOLE, order="oldest", limit=1000
    )
    return found.events


def test_an_id_finds_its_event(stored: Stored) -> None:
    """Also where another event has the same microsecond; an id that no row has finds nothing."""
    for event in every_event(stored)[:4]:
        position = Position.of_id(event.id)
        assert find_event(stored.connection, stored.tables.events, position) == event
    absent = replace(position, row_uid="f" * 32)
    assert find_event(stored.connection, stored.tables.events, absent) is None
    assert context_of(stored.connection, stored.tables.events, absent) is None


@pytest.mark.parametrize("same", [None, "trace_id", "worker_id"])
def test_neighbours_are_the_nearest_on_both_sides(
    stored: Stored, same: Literal["trace_id", "worker_id"] | None
) -> None:
    """In all events, or in those with the same trace or worker; the event itself is not among them."""
    alike = [event for event in every_event(stored) if same is None or getattr(event, same)]
    event = alike[len(alike) // 2]
    if same:
        alike = [other for other in alike if getattr(other, same) == getattr(event, same)]
    index = alike.index(event)
    found = context_of(
        stored.connection,
        stored.tables.events,
        Position.of_id(event.id),
        same=same,
        before=3,
        after=2,
    )
    assert found
    assert found.event == event
    assert list(found.before) == alike[index - 3 : index][::-1]
    assert list(found.after) == alike[index + 1 : index + 3]
    assert found.is_complete


def test_neighbours_end_with_the_reach(stored: Stored) -> None:
    """An event farther away is none, so that a search for a rare worker ends."""
    event = every_event(stored)[-1]
    found = context_of(
        stored.connection,
        stored.tables.events,
        Position.of_id(event.id),
        before=1000,
        reach=timedelta(minutes=20),
    )
    assert found
    nearest = event.timestamp - timedelta(minutes=20)
    assert found.before
    assert all(other.timestamp >= nearest for other in found.before)
    assert found.searched.start == nearest


def test_an_event_without_a_trace_has_no_trace_of_neighbours(stored: Stored) -> None:
    """The message says so, and names the other way."""
    event = next(event for event in every_event(stored) if event.trace_id is None)
    with pytest.raises(
        ConfigurationError, match="has no trace_id: ask for its neighbours in time"
    ):
        context_of(
            stored.connection, stored.tables.events, Position.of_id(event.id), same="trace_id"
        )


def test_an_event_that_cannot_be_found_in_time_is_an_error(stored: Stored) -> None:
    """It is not the same as an event that is not there."""
    (event,) = list_events(
        stored.connection, stored.tables.events, EVERYTHING, WHOLE, limit=1
    ).events
    position = Position.of_id(event.id)
    with pytest.raises(TransientError, match="was not found within 0 s: try again"):
        find_event(stored.connection, stored.tables.events, position, deadline_s=0)
