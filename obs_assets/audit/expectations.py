"""The expectation of a test of a pipeline, its comparison with a result, and its snapshot."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from obs_assets.audit.trial import KEPT, Record, Result

_MISSING = object()
"""In place of a value that is not there."""

_PUBLIC_ALERT = ("rule", "status", "hour")
"""Fields of an alert that a new snapshot holds."""


class ExpectedRecord(BaseModel, frozen=True, extra="forbid"):
    """The outcome of a record of the input.

    Attributes:
        outcome: ``kept``, the reason for which it is dropped (``filtered:low_value``,
            ``sampled_out:default``), or the reason of a dead letter (``not_json``).
        event: fields that the event has after its last stage; other fields are not looked at.
        exact: the whole event after its last stage.
        paths: path → value: names and numbers of list elements with dots between them.
        absent: paths at which there is nothing.
        columns: columns that the event has in a table, for example ``event_level``; null for an
            empty column.
        weight: number of events that it stands for.
        destinations: asset names of all destinations that take it.
    """

    outcome: str = KEPT
    event: dict[str, Any] | None = None
    exact: dict[str, Any] | None = None
    paths: dict[str, Any] = {}
    absent: tuple[str, ...] = ()
    columns: dict[str, Any] = {}
    weight: float | None = None
    destinations: tuple[str, ...] | None = None


class Expected(BaseModel, frozen=True, extra="forbid"):
    """The result of a pipeline. Parts that are left out are not looked at.

    Attributes:
        events: an entry for each record of the input, in its order.
        counts: outcome → number of records, for all outcomes.
        alerts: the messages that alert rules would send: each with some of the fields
            ``destination``, ``rule``, ``status``, ``hour``, ``summary``, ``alerts``.
        forwarded: rule → number of events that it would forward, for all rules.
    """

    events: tuple[ExpectedRecord, ...] | None = None
    counts: dict[str, int] | None = None
    alerts: tuple[dict[str, Any], ...] | None = None
    forwarded: dict[str, int] | None = None

    @property
    def has_alerts(self) -> bool:
        """Whether alert rules must be judged."""
        return self.alerts is not None or self.forwarded is not None


# -- comparison ------------------------------------------------------------------------------------


def differences(expected: Expected, result: Result) -> list[str]:
    """A line for each difference between an expectation and a result; none if they agree."""
    found: list[str] = []
    if expected.events is not None:
        found += _of_events(expected.events, result.records)
    if expected.counts is not None:
        found += _unequal("counts", expected.counts, result.counts)
    if expected.alerts is not None:
        found += _of_list("alerts", expected.alerts, result.alerts)
    if expected.forwarded is not None:
        found += _unequal("forwarded", expected.forwarded, result.forwarded)
    return found


def _of_events(expected: Sequence[ExpectedRecord], records: Sequence[Record]) -> Iterator[str]:
    if len(expected) != len(records):
        # The numbers alone would not say which record is missing.
        outcomes = ", ".join(record.outcome for record in records) or "none"
        yield f"events: expected {len(expected)}, found {len(records)}: {outcomes}"
    for number, (entry, record) in enumerate(zip(expected, records, strict=False), start=1):
        for line in _of_record(entry, record):
            yield f"event {number}: {line}"


def _of_record(expected: ExpectedRecord, record: Record) -> Iterator[str]:
    yield from _unequal("outcome", expected.outcome, record.outcome)
    # A dead letter has no event: each expected field is then named as missing.
    event = record.event or {}
    if expected.event is not None:
        yield from _subset("event", expected.event, event)
    if expected.exact is not None:
        yield from _unequal("event", expected.exact, event)
    for path, value in expected.paths.items():
        yield from _unequal(path, value, _value_at(event, path))
    for path in expected.absent:
        value = _value_at(event, path)
        if value is not _MISSING:
            yield f"{path}: expected nothing, found {_text(value)}"
    for name, value in expected.columns.items():
        yield from _unequal(f"column {name}", value, record.columns.get(name))
    if expected.weight is not None:
        yield from _unequal("weight", expected.weight, record.weight)
    if expected.destinations is not None:
        yield from _unequal(
            "destinations", sorted(expected.destinations), sorted(record.destinations)
        )


def _subset(path: str, expected: Any, found: Any) -> Iterator[str]:
    """Differences in the fields that an expectation names."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key, value in expected.items():
            yield from _subset(f"{path}.{key}", value, found.get(key, _MISSING))
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        yield from _of_list(path, expected, found)
    else:
        yield from _unequal(path, expected, found)


def _of_list(path: str, expected: Sequence[Any], found: Sequence[Any]) -> Iterator[str]:
    if len(expected) != len(found):
        yield f"{path}: expected {len(expected)}, found {len(found)}: {_text(list(found))}"
    for number, (wanted, value) in enumerate(zip(expected, found, strict=False)):
        yield from _subset(f"{path}.{number}", wanted, value)


def _unequal(path: str, expected: Any, found: Any) -> Iterator[str]:
    """Differences of two values; those of mappings and lists are named one by one."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        # Keys of both sides, in their order: a field too many is a difference as well.
        for key in dict.fromkeys((*expected, *found)):
            yield from _unequal(
                f"{path}.{key}", expected.get(key, _MISSING), found.get(key, _MISSING)
            )
        return
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (wanted, value) in enumerate(zip(expected, found, strict=True)):
            yield from _unequal(f"{path}.{number}", wanted, value)
        return
    # For Python, true equals 1.
    are_same_kind = isinstance(expected, bool) == isinstance(found, bool)
    if expected != found or not are_same_kind:
        yield f"{path}: expected {_text(expected)}, found {_text(found)}"


def _value_at(event: Any, path: str) -> Any:
    """The value at a path; `_MISSING` if there is none. A key that has dots itself is found too."""
    if isinstance(event, Mapping) and path in event:
        return event[path]
    name, _, rest = path.partition(".")
    if isinstance(event, Mapping) and name in event:
        return _value_at(event[name], rest) if rest else event[name]
    if isinstance(event, list) and name.isdigit() and int(name) < len(event):
        return _value_at(event[int(name)], rest) if rest else event[int(name)]
    return _MISSING


def _text(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    return json.dumps(value, ensure_ascii=False, default=str)


# -- snapshot --------------------------------------------------------------------------------------


def snapshot(expected: Expected | None, result: Result) -> dict[str, Any]:
    """An expectation that the result meets, in the form of the earlier expectation.

    Without an earlier expectation, it has the fields of each event that do not begin with ``_``.
    """
    if expected is None:
        expected = Expected(events=())
    found: dict[str, Any] = {}
    if expected.events is not None:
        found["events"] = []
        for number, record in enumerate(result.records):
            entry = None
            if number < len(expected.events):
                entry = expected.events[number]
            found["events"].append(_entry(entry, record))
    if expected.counts is not None:
        found["counts"] = result.counts
    if expected.alerts is not None:
        names: Sequence[str] = _PUBLIC_ALERT
        if expected.alerts:
            # The author chose these fields: a new snapshot must not add others.
            names = list(expected.alerts[0])
        found["alerts"] = [_named(alert, names) for alert in result.alerts]
    if expected.forwarded is not None:
        found["forwarded"] = result.forwarded
    return found


def _named(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _entry(expected: ExpectedRecord | None, record: Record) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if record.outcome != KEPT or expected is not None:
        entry["outcome"] = record.outcome
    event = record.event
    if event is None:
        return entry
    if expected is None:
        # Fields that stages add depend on the configuration, which a test may want to change.
        entry["event"] = {k: v for k, v in event.items() if not k.startswith("_")}
        return entry
    if expected.event is not None:
        entry["event"] = _in_form_of(expected.event, event)
    if expected.exact is not None:
        entry["exact"] = event
    values = {path: _value_at(event, path) for path in (*expected.paths, *expected.absent)}
    paths = {path: value for path, value in values.items() if value is not _MISSING}
    absent = [path for path, value in values.items() if value is _MISSING]
    if paths:
        entry["paths"] = paths
    if absent:
        entry["absent"] = absent
    if expected.columns:
        entry["columns"] = {name: record.columns.get(name) for name in expected.columns}
    if expected.weight is not None and record.weight is not None:
        entry["weight"] = record.weight
    if expected.destinations is not None:
        entry["destinations"] = record.destinations
    return entry


def _in_form_of(expected: Any, found: Any) -> Any:
    """The part of a value that an expectation names."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        return {
            key: _in_form_of(value, found[key])
            for key, value in expected.items()
            if key in found
        }
    return found
