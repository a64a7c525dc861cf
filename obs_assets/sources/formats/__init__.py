"""The formats that landing knows. Each format has a module and a row of `FORMATS`.

Most loggers need no row: any JSON object is an event, and the tables of fields in `obs_assets.events` hold their names.
A row is needed for an object that is more than an event (an envelope of records), or less (a piece of a line that its
carrier cut), and for text that is not JSON. Envelopes without a row are found by their records: `records.Unnamed`.

A JSON format is recognised by the shape of an object, its top-level keys. A text format must be set in the pipeline.
"""

from typing import TypeAlias

from obs_assets.sources.formats import azure as azure
from obs_assets.sources.formats import (
    cloudtrail,
    cloudwatch,
    cri,
    datadog,
    docker,
    elasticsearch,
    fluentd,
    journald,
    journald_export,
    kubernetes,
    otlp,
    splunk,
    syslog,
)
from obs_assets.sources.formats.base import Envelope, Pieces, Text
from obs_assets.sources.formats.records import Unnamed

Format: TypeAlias = Envelope | Pieces | Text | Unnamed

FORMATS: tuple[Format, ...] = (
    cloudtrail.FORMAT,
    azure.FORMAT,
    cloudwatch.FORMAT,
    *otlp.FORMATS,
    kubernetes.FORMAT,
    *elasticsearch.FORMATS,
    *splunk.FORMATS,
    datadog.FORMAT,
    docker.FORMAT,
    *fluentd.FORMATS,
    *journald.FORMATS,
    cri.FORMAT,
    syslog.FORMAT,
    journald_export.FORMAT,
)

NAMES = ("auto", "json", *dict.fromkeys(row.name for row in FORMATS))
"""Values of ``source.format``; ``json``: every object is an event, unchanged."""


def enabled(name: str, records: str, time_path: str | None = None) -> tuple[Format, ...]:
    """The rows to try.

    Args:
        name: a member of `NAMES`.
        records: ``auto``, ``off``, or the path of a list whose objects are events.
        time_path: field in which the pipeline first looks for the time of an event.
    """
    rows: list[Format] = [
        row
        for row in FORMATS
        if name == row.name or (name == "auto" and not isinstance(row, Text))
    ]
    if records == "off":
        return tuple(row for row in rows if not isinstance(row, Envelope))
    if records != "auto":
        return (*(row for row in rows if not isinstance(row, Envelope)), of_path(records))
    if name == "auto":
        singles = (row for row in rows if isinstance(row, Envelope) and not row.path)
        rows.append(Unnamed(tuple(singles), time_path))
    return tuple(rows)


def of_path(path: str) -> Envelope:
    """Row for an envelope whose records are at a path from the operator."""
    names = tuple(path.split("."))
    return Envelope("records", path=names, keys=frozenset(names[:1]))


def likely(text: str) -> str:
    """The text format that a line probably has; empty if none is likely."""
    rows = (row for row in FORMATS if isinstance(row, Text) and row.looks_like.match(text))
    return next((row.name for row in rows), "")


__all__ = [
    "FORMATS",
    "NAMES",
    "Envelope",
    "Format",
    "Pieces",
    "Text",
    "Unnamed",
    "enabled",
    "likely",
    "of_path",
]
