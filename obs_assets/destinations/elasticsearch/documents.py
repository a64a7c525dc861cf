"""Rows as documents: the fields of a mapping, and the bodies of bulk requests."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from obs_assets.destinations.base import Column, Page
from obs_assets.events import MEANINGS, Frame, quote

Mapping: TypeAlias = Literal["ecs", "none"]

BATCH_ROWS = 2_000
"""Rows that DuckDB turns into documents at a time."""

KEYWORD_BYTES = 8_191
"""Characters of the longest value that is found by equality; a term has at most 32,766 bytes of UTF-8."""


@dataclass(frozen=True)
class DocumentField:
    """A field of a document.

    Attributes:
        column: name in ``mapping: none``.
        ecs: path in ``mapping: ecs``.
        type: type in the index, a key of `_TYPES`.
        value: SQL of its JSON text; NULL leaves the field out.
        is_ours: the field has this name in every mapping.
    """

    column: str
    ecs: str
    type: str
    value: str
    is_ours: bool = False

    @property
    def meaning(self) -> str:
        """Its meaning and unit, for the catalogue."""
        return MEANINGS.get(self.column) or _MEANINGS[self.column]

    def path(self, mapping: Mapping) -> str:
        """Names of objects and of the field, with dots between them."""
        if mapping == "none" and not self.is_ours:
            return self.column
        return self.ecs


def _text(expression: str) -> str:
    return f"to_json({expression})::VARCHAR"


def _number(expression: str) -> str:
    return f"({expression})::VARCHAR"


_TIME = "strftime(event_time AT TIME ZONE 'UTC', '\"%Y-%m-%dT%H:%M:%S.%fZ\"')"
_MESSAGE = (
    "coalesce(json_extract_string(event, '$.message'), json_extract_string(event, '$.msg'))"
)

FIELDS = (
    DocumentField("@timestamp", "@timestamp", "date_nanos", _TIME),
    DocumentField("message", "message", "text", _text(_MESSAGE)),
    DocumentField("event_id", "event.id", "keyword", _text("event_id")),
    DocumentField("event_type", "event.action", "keyword", _text("event_type")),
    DocumentField("event_level", "log.level", "keyword", _text("event_level")),
    DocumentField("source_name", "service.name", "keyword", _text("source_name")),
    DocumentField("trace_id", "trace.id", "keyword", _text("trace_id")),
    DocumentField("error", "error.message", "text", _text("error")),
    # ECS counts nanoseconds. A decimal, because a BIGINT of milliseconds can exceed its range.
    DocumentField(
        "duration_ns",
        "event.duration",
        "long",
        _number("duration_ms::DECIMAL(25, 0) * 1000000"),
    ),
    DocumentField("master_type", "labels.master_type", "keyword", _text("master_type")),
    DocumentField("worker_type", "labels.worker_type", "keyword", _text("worker_type")),
    DocumentField("worker_id", "labels.worker_id", "keyword", _text("worker_id")),
    DocumentField("session_id", "labels.session_id", "keyword", _text("session_id")),
    DocumentField("cost_usd", "obs.cost_usd", "double", _number("cost_usd"), is_ours=True),
    DocumentField("weight", "obs.weight", "double", _number("weight"), is_ours=True),
    DocumentField("row_uid", "obs.row_uid", "keyword", _text("row_uid"), is_ours=True),
    DocumentField("original", "event.original", "original", _text("event")),
)
"""The fields of a document, beside ``data`` (the event itself), ``obs.hour`` and ``obs.build``."""

_MEANINGS = {
    "@timestamp": MEANINGS["event_time"],
    "message": "message or msg",
    "duration_ns": "duration_ms or duration, in nanoseconds as ECS counts it",
    "original": "the whole event as JSON text",
}

_TYPES: dict[str, dict[str, Any]] = {
    "date_nanos": {"type": "date_nanos"},
    "text": {"type": "text"},
    "keyword": {"type": "keyword", "ignore_above": KEYWORD_BYTES},
    # A duration of over 292 years is kept and not indexed.
    "long": {"type": "long", "ignore_malformed": True},
    "double": {"type": "double", "ignore_malformed": True},
    # Read back as text; `data` is what a search looks into.
    "original": {"type": "keyword", "index": False, "doc_values": False},
}


def original_path(mapping: Mapping) -> str:
    """Path of the field with the text of the event."""
    return FIELDS[-1].path(mapping)


def index_mappings(mapping: Mapping, *, is_opensearch: bool) -> dict[str, Any]:
    """The ``mappings`` of an index template.

    Fields of events are not added to it one by one: ``data`` is a single field that searches by path
    (``data.usage.model``), so that no event can make a field or meet a field of another type.
    """
    properties: dict[str, Any] = {}
    for field in FIELDS:
        _put(properties, field.path(mapping).split("."), _TYPES[field.type])
    # By these, a delivery finds the documents of an older delivery of its hour.
    for name in ("hour", "build"):
        _put(properties, ["obs", name], {"type": "keyword"})
    anything: dict[str, Any] = {"type": "flat_object"}
    # The two programs have the same type under different names.
    if not is_opensearch:
        anything = {"type": "flattened", "ignore_above": KEYWORD_BYTES, "depth_limit": 200}
    properties["data"] = anything
    return {
        "dynamic": False,
        # `original` holds the same content, with the digits of its numbers.
        "_source": {"excludes": ["data"]},
        "properties": properties,
    }


def _put(properties: dict[str, Any], path: list[str], definition: dict[str, Any]) -> None:
    *outer, name = path
    for key in outer:
        properties = properties.setdefault(key, {"properties": {}})["properties"]
    properties[name] = definition


def documents_page(config: Any) -> Page:
    """The page of an index for the catalogue."""
    columns = [
        Column(field.path(config.mapping), _TYPES[field.type]["type"], field.meaning)
        for field in FIELDS
    ]
    columns += [
        Column("obs.hour", "keyword", "key of the hour"),
        Column("obs.build", "keyword", "identity of the delivery that wrote the document"),
        Column("data", "flattened", "the whole event, searchable by path: data.usage.model"),
    ]
    return Page(config.index, tuple(columns))


@dataclass(frozen=True)
class Body:
    """The body of a bulk request.

    Attributes:
        rows: number of documents.
        lines: NDJSON: for each document its action, then the document; ends with a line feed.
    """

    rows: int
    lines: bytes


@dataclass(frozen=True)
class Documents:
    """How the rows of a delivery become documents.

    Attributes:
        mapping: names of the fields.
        hour: key of the hour.
        build: identity of this delivery.
        version: external version of each document; a document with a higher version stays.
        has_data: the document has the searchable copy of the event.
    """

    mapping: Mapping
    hour: str
    build: str
    version: int
    has_data: bool = True

    def lines_sql(self) -> str:
        """SQL of the two lines of a row: the action and the document."""
        tree: dict[str, Any] = {}
        for field in FIELDS:
            _insert(tree, field.path(self.mapping).split("."), field.value)
        _insert(tree, ["obs", "hour"], quote(f'"{self.hour}"'))
        _insert(tree, ["obs", "build"], quote(f'"{self.build}"'))
        if self.has_data:
            tree["data"] = "event"
        action = (
            f"""'{{"index":{{"_id":"' || row_uid || '","version":{self.version},"""
            f""""version_type":"external_gte"}}}}' || chr(10)"""
        )
        return f"{action} || {_object(tree)} || chr(10)"

    def bodies(self, frame: Frame, size: int) -> Generator[Body]:
        """Bodies of about ``size`` bytes, in the order of the frame; a larger document is alone in its body."""
        lines = frame.project(f"{self.lines_sql()} AS lines")
        with lines.to_arrow_reader(BATCH_ROWS) as batches:
            for batch in batches:
                yield from _cut(batch.column(0), size)


def _insert(tree: dict[str, Any], path: list[str], value: str) -> None:
    *outer, name = path
    for key in outer:
        tree = tree.setdefault(key, {})
    tree[name] = value


def _object(tree: dict[str, Any]) -> str:
    """SQL of a JSON object; a member whose value is NULL is left out."""
    members = []
    for name, value in tree.items():
        text = value
        if isinstance(value, dict):
            # An object without members is left out.
            text = f"nullif({_object(value)}, '{{}}')"
        key = quote(f'"{name}":')
        members.append(f"{key} || {text}")
    return f"'{{' || concat_ws(',', {', '.join(members)}) || '}}'"


def _cut(lines: pa.Array, size: int) -> Iterator[Body]:
    """A batch of lines as bodies."""
    texts = lines.cast(pa.large_binary())
    _, offsets_buffer, data = texts.buffers()
    ends = np.frombuffer(offsets_buffer, np.int64, len(texts) + 1, texts.offset * 8)
    whole = memoryview(data)
    start = 0
    while start < len(texts):
        # The last row that ends within the size; at least one row.
        stop = int(np.searchsorted(ends, ends[start] + size, side="right")) - 1
        stop = min(max(stop, start + 1), len(texts))
        yield Body(stop - start, bytes(whole[ends[start] : ends[stop]]))
        start = stop
