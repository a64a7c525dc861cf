"""Reads events from bytes. Every byte belongs to an event, to a dead letter, or to the separators.

There are three lanes. The native lane (`obs_assets.sources.native`) reads the usual case: one JSON object per line.
Everything else of JSON goes through the careful lane (`obs_assets.sources.careful`): objects over several lines,
several objects on one line, arrays of events, incomplete ends, and damage. Commas and brackets between events count as
separators, so an array of events needs no other rule. The text lane (`obs_assets.sources.text_lane`) reads files in a
text format. Behind the lanes, `obs_assets.sources.unwrapping` makes events of objects that are in a format.

Event text leaves these modules only as an event, or as the bytes of a dead letter.
"""

from dataclasses import replace

import duckdb
import numpy as np

from obs_assets.sources import views
from obs_assets.sources.careful import Rules, Segment
from obs_assets.sources.formats import Text
from obs_assets.sources.native import read_objects
from obs_assets.sources.reading import Reading
from obs_assets.sources.text_lane import read_text
from obs_assets.sources.unwrapping import Unwrapping


def read_batch(
    connection: duckdb.DuckDBPyConnection,
    data: bytes | bytearray,
    segments: list[Segment],
    rules: Rules,
) -> Reading:
    """Read events and dead letters from segments of files.

    Args:
        connection: DuckDB connection for the native lane.
        data: the bytes of all segments, in order. The lines of the events are views of these bytes.
        segments: the segments; read together, so that ten thousand small files cost no more than a large file.
        rules: limits of an event, and the formats to try.
    """
    reading = _read_all(connection, data, segments, rules)
    if any(segment.landed_to > segment.offset for segment in segments):
        return _behind_landed(reading, segments)
    return reading


def _read_all(
    connection: duckdb.DuckDBPyConnection,
    data: bytes | bytearray,
    segments: list[Segment],
    rules: Rules,
) -> Reading:
    """The reading, also of events that have landed before."""
    formats = rules.formats
    if formats and isinstance(formats[0], Text):
        return read_text(data, segments, formats[0], rules)
    reading, places = read_objects(connection, data, segments, rules)
    if not formats or not (places.formats != 0).any():
        return reading
    return Unwrapping(connection, data, segments, rules).of(reading, places)


def _behind_landed(reading: Reading, segments: list[Segment]) -> Reading:
    """The reading without what has landed already: an envelope that has grown is read again from its begin."""
    landed_to = np.zeros(max(segment.file for segment in segments) + 1, np.int64)
    settled = []
    for segment, end in zip(segments, reading.settled, strict=True):
        landed_to[segment.file] = segment.landed_to
        is_new = segment.offset + end > segment.landed_to
        settled.append(end if is_new else 0)
    lines = reading.lines
    are_new = lines["file_offset"].to_numpy() >= landed_to[lines["file"].to_numpy()]
    letters = [letter.behind(int(landed_to[letter.file])) for letter in reading.dead]
    return replace(
        reading,
        lines=views.filter_rows(lines, are_new),
        dead=[letter for letter in letters if letter],
        settled=settled,
    )
