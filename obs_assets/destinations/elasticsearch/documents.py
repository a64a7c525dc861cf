"""Rows as documents: the fields of a mapping, and the bodies of bulk requests."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from obs_assets.destinations.base import Column, Page
from obs_assets.destinations.mapping import (
    WHOLE,
    MappingName,
    Tree,
    Value,
    fields_of,
    object_sql,
    put,
)
from obs_assets.events import MEANINGS, Frame, quote

BATCH_ROWS = 2_000
"""Rows that DuckDB turns into documents at a time."""

KEYWORD_BYTES = 8_191
"""Characters of the longest value that is found by equality; a term has at most 32,766 bytes of UTF-8."""

TIMES = ("event_time", "time_unix_ns")
"""Values that are in ``@timestamp`` under every mapping, because Kibana and data streams ask for that field."""

_TYPES: dict[str, dict[str, Any]] = {
    "time": {"type": "date_nanos"},
    "text": {"type": "text"},
    "keyword": {"type": "keyword", "ignore_above": KEYWORD_BYTES},
    # A duration of over 292 years is kept and not indexed.
    "long": {"type": "long", "ignore_malformed": True},
    "double": {"type": "double", "ignore_malformed": True},
}
"""Kind of a value → its type in the index."""

_OWN = {
    "@timestamp": Value("{event_time}", MEANINGS["event_time"], "time"),
    "obs.weight": Value("weight", MEANINGS["weight"], "double"),
    "obs.row_uid": Value("row_uid", MEANINGS["row_uid"]),
}
"""Fields that every document has under every mapping."""

# Read back as text; `data` is what a search looks into.
_ORIGINAL = {"type": "keyword", "index": False, "doc_values": False}


def original_path(mapping: MappingName) -> str:
    """Path of the field with the text of the event; ECS has a name for it."""
    return "event.original" if mapping == "ecs" else "original"


def document_fields(mapping: MappingName) -> dict[str, Value]:
    """Path → value of the fields of a document, beside the event itself and our own ``obs.hour`` and ``obs.build``."""
    mapped = {".".join(path): value for path, value in fields_of(mapping, TIMES)}
    return mapped | _OWN


def index_mappings(mapping: MappingName, *, is_opensearch: bool) -> dict[str, Any]:
    """The ``mappings`` of an index template.

    Fields of events are not added to it one by one: ``data`` is a single field that searches by path
    (``data.usage.model``), so that no event can make a field or meet a field of another type.
    """
    types = {path: _TYPES[value.kind] for path, value in document_fields(mapping).items()}
    # By these, a delivery finds the documents of an older delivery of its hour.
    types |= {path: {"type": "keyword"} for path in ("obs.hour", "obs.build")}
    types[original_path(mapping)] = _ORIGINAL
    properties: dict[str, Any] = {}
    for path, definition in types.items():
        # Members of an object are one level below it.
        put(properties, tuple(path.replace(".", ".properties.").split(".")), definition)
    anything: dict[str, Any] = {"type": "flat_object"}
    # The two programs have the same type under different names.
    if not is_opensearch:
        anything = {"type": "flattened", "ignore_above": KEYWORD_BYTES, "depth_limit": 200}
    properties[WHOLE] = anything
    return {
        "dynamic": False,
        # The text of the event holds the same content, with the digits of its numbers.
        "_source": {"excludes": [WHOLE]},
        "properties": properties,
    }


def documents_page(config: Any) -> Page:
    """The page of an index for the catalogue."""
    columns = [
        Column(path, _TYPES[value.kind]["type"], value.meaning)
        for path, value in document_fields(config.mapping).items()
    ]
    columns += [
        Column(original_path(config.mapping), "keyword", "the whole event as JSON text"),
        Column("obs.hour", "keyword", "key of the hour"),
        Column("obs.build", "keyword", "identity of the delivery that wrote the document"),
        Column(WHOLE, "flattened", "the whole event, searchable by path: data.usage.model"),
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

    mapping: MappingName
    hour: str
    build: str
    version: int
    has_data: bool = True

    def lines_sql(self) -> str:
        """SQL of the two lines of a row: the action and the document."""
        fields = {path: value.json for path, value in document_fields(self.mapping).items()}
        fields["obs.hour"] = quote(f'"{self.hour}"')
        fields["obs.build"] = quote(f'"{self.build}"')
        fields[original_path(self.mapping)] = "to_json(event)::VARCHAR"
        tree: Tree = {}
        for path, value in fields.items():
            put(tree, tuple(path.split(".")), value)
        if self.has_data:
            tree[WHOLE] = "event"
        action = (
            f"""'{{"index":{{"_id":"' || row_uid || '","version":{self.version},"""
            f""""version_type":"external_gte"}}}}' || chr(10)"""
        )
        return f"{action} || {object_sql(tree)} || chr(10)"

    def bodies(self, frame: Frame, size: int) -> Generator[Body]:
        """Bodies of about ``size`` bytes, in the order of the frame; a larger document is alone in its body."""
        lines = frame.project(f"{self.lines_sql()} AS lines")
        with lines.to_arrow_reader(BATCH_ROWS) as batches:
            for batch in batches:
                yield from _cut(batch.column(0), size)


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
