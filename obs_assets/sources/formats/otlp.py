"""OpenTelemetry logs as JSON (OTLP/JSON): envelopes by resource and scope, or single log records.

An event is the record with its body and attributes as plain JSON; ``resource`` and ``scope`` hold the fields around it.
Names of fields may have the form of Protocol Buffers (``time_unix_nano``); an event has the form of JSON. Spans come in
the same envelopes as log records.
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from obs_assets.sources.formats.base import Envelope, Event
from obs_assets.sources.json_text import number


def _event(record: Event, outer: Sequence[Event]) -> Event:
    event = {}
    for name, value in record.items():
        own = _camel(name)
        event[own] = _plain_field(own, value)
    for fields in outer:
        for name in ("resource", "scope"):
            about = fields.get(name)
            if isinstance(about, dict) and about and name not in event:
                event[name] = _flat(about)
    return event


def _camel(name: str) -> str:
    """A name in the form of JSON: ``time_unix_nano`` becomes ``timeUnixNano``."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _snake(name: str) -> str:
    """A name in the form of Protocol Buffers: ``timeUnixNano`` becomes ``time_unix_nano``."""
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def _plain_field(name: str, value: Any) -> Any:
    match name, value:
        case "body", dict():
            return _plain(value)
        case "attributes", list():
            return _attributes(value)
    return value


def _flat(about: Event) -> Event:
    """A resource or scope with its attributes among its own fields."""
    attributes = _plain_field("attributes", about.get("attributes", []))
    others = {name: value for name, value in about.items() if name != "attributes"}
    return {**others, **attributes} if isinstance(attributes, dict) else about


def _attributes(pairs: list[Any]) -> Any:
    if not all(isinstance(pair, dict) and isinstance(pair.get("key"), str) for pair in pairs):
        return pairs
    return {pair["key"]: _plain(pair.get("value")) for pair in pairs}


def _plain(value: Any) -> Any:
    """Plain JSON of an AnyValue; other values unchanged."""
    if not isinstance(value, dict) or len(value) != 1:
        return None if value == {} else value
    ((kind, held),) = value.items()
    match _camel(kind), held:
        case "intValue", str():
            return number(held)
        case "arrayValue", dict():
            return [_plain(one) for one in held.get("values", [])]
        case "kvlistValue", dict():
            return _attributes(held.get("values", []))
        case (("stringValue" | "boolValue" | "intValue" | "doubleValue" | "bytesValue"), _):
            return held
    return value


_LISTS = (
    ("resourceLogs", "scopeLogs", "logRecords"),
    ("resourceSpans", "scopeSpans", "spans"),
)
_OF_RECORDS = ("timeUnixNano", "observedTimeUnixNano", "startTimeUnixNano")
_BESIDE = ("resource", "schemaUrl")


def _rows(spelled: Callable[[str], str]) -> Iterator[Envelope]:
    """The envelopes, the objects of their outer lists, and single records, with names in a spelling."""
    for path in _LISTS:
        whole = tuple(map(spelled, path))
        yield Envelope(
            "otlp", path=whole, keys=frozenset(whole[:1]), others=frozenset(), event=_event
        )
        yield Envelope(
            "otlp",
            path=whole[1:],
            keys=frozenset(whole[1:2]),
            others=frozenset(map(spelled, _BESIDE)),
            event=_event,
        )
    for name in _OF_RECORDS:
        yield Envelope("otlp", path=(), keys=frozenset({spelled(name)}), event=_event)


FORMATS = (*_rows(str), *_rows(_snake))
