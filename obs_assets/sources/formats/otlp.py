"""OpenTelemetry logs as JSON (OTLP/JSON): envelopes by resource and scope, or single log records.

An event is the record with its body and attributes as plain JSON; ``resource`` and ``scope`` hold the fields around it.
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from collections.abc import Sequence
from typing import Any

from obs_assets.sources.formats.base import Envelope, Event
from obs_assets.sources.json_text import number


def _event(record: Event, outer: Sequence[Event]) -> Event:
    event = {name: _plain_field(name, value) for name, value in record.items()}
    for fields in outer:
        for name in ("resource", "scope"):
            about = fields.get(name)
            if isinstance(about, dict) and about and name not in event:
                event[name] = _flat(about)
    return event


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
    match kind, held:
        case "intValue", str():
            return number(held)
        case "arrayValue", dict():
            return [_plain(one) for one in held.get("values", [])]
        case "kvlistValue", dict():
            return _attributes(held.get("values", []))
        case (("stringValue" | "boolValue" | "intValue" | "doubleValue" | "bytesValue"), _):
            return held
    return value


_RESOURCE = frozenset({"resource", "schemaUrl"})

FORMATS = (
    Envelope(
        "otlp",
        path=("resourceLogs", "scopeLogs", "logRecords"),
        keys=frozenset({"resourceLogs"}),
        others=frozenset(),
        event=_event,
    ),
    Envelope(
        "otlp",
        path=("scopeLogs", "logRecords"),
        keys=frozenset({"scopeLogs"}),
        others=_RESOURCE,
        event=_event,
    ),
    Envelope("otlp", path=(), keys=frozenset({"timeUnixNano"}), event=_event),
    Envelope("otlp", path=(), keys=frozenset({"observedTimeUnixNano"}), event=_event),
)
"""The envelope, an object of its outer list, and single records."""
