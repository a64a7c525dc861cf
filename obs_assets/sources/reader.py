"""Reads events from bytes. Every byte belongs to an event, to a dead letter, or to the separators.

There are two lanes. The native lane, in this module, reads the usual case: one JSON object per line. Everything else
goes through the careful lane (`obs_assets.sources.careful`): objects over several lines, several objects on one line,
arrays of events, incomplete ends, and damage. Commas and brackets between events count as separators, so an array of
events needs no other rule.

Event text leaves this module only as an event, or as the bytes of a dead letter.
"""

import codecs
import contextlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_assets.sources import views
from obs_assets.sources.careful import CarefulLane, DeadLetter, Rules, Segment
from obs_assets.sources.envelopes import (
    Buffer,
    NoEnvelopeError,
    Opened,
    Span,
    event_of,
    open_envelope,
)
from obs_assets.sources.formats import Envelope, Format, Pieces, Text, Unnamed
from obs_assets.sources.formats.base import Event, Record, always
from obs_assets.sources.json_text import cleaned, loaded, written
from obs_assets.sources.keys import (
    ANYWHERE,
    examples_of,
    repeating,
    shape_at,
    untold,
    usual_paths,
)
from obs_assets.sources.pieces import Piece, join, ranges_of
from obs_assets.sources.strict import IS_STRICT, doubtful_places

_STRICT = f"SELECT {IS_STRICT} AS is_strict FROM batch_lines"

ROWS_A_TASK = 8192
"""Rows of an Arrow chunk: DuckDB reads each chunk of an Arrow table with one thread."""

_BLOCK = 1 << 18
"""Bytes of a block that fits a processor's cache."""
_MOST_SEPARATORS = 64
"""Separators before or behind an event that the native lane skips."""
_BEFORE_EVENT = np.isin(np.arange(256), list(b" \t\r\n,[\0\x1e"))
_AFTER_EVENT = np.isin(np.arange(256), list(b" \t\r\n,]\0\x1e"))


@dataclass(frozen=True)
class Reading:
    """Result of reading a batch of segments.

    Attributes:
        lines: the events: file (INT), file_offset (BIGINT), length (BIGINT, bytes in the file), line (VARCHAR, a view
            of the bytes of the batch).
        dead: the dead letters; neighbours with the same reason are joined.
        consumed: for each segment, number of bytes that were read. The rest must be read again, with more bytes after
            it unless the file has none. From a segment longer than ``max_event_bytes``, some bytes are always consumed.
        settled: for each segment, number of bytes up to the end of its last event or dead letter; 0 if it has neither.
            Behind them are separators, or bytes that a writer has reserved and will overwrite.
        within_line: for each segment, whether the next byte belongs to a line that was too long.
        within_object: for each segment, whether the next byte belongs to an object that was given up, see `Segment`.
        remarks: remark → number of events. Changes of the text: ``duplicate_keys``, ``lone_surrogate``,
            ``nul_character``, ``unfolded``. Formats: ``format_otlp``, ``format_ambiguous``, ``partial``.
        envelope_bytes: file → bytes of envelopes outside their records.
        begins_envelope: for each segment, whether an envelope longer than the longest allowed event begins where
            ``consumed`` ends: `read_records` reads it.
        byte_ranges: file and offset of an event that was joined from pieces → begin and end of each piece in the
            file, in order.
        open_envelopes: number of a segment → the envelope around its ``settled``. Its bytes behind ``settled`` are not
            among ``envelope_bytes``.
    """

    lines: pa.Table
    dead: list[DeadLetter]
    consumed: list[int]
    settled: list[int]
    within_line: list[bool]
    within_object: list[int]
    remarks: Mapping[str, int]
    envelope_bytes: Mapping[int, int] = field(default_factory=dict)
    begins_envelope: Sequence[bool] = ()
    byte_ranges: Mapping[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    open_envelopes: Mapping[int, "OpenEnvelope"] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenEnvelope:
    """An envelope that may be written again with more records.

    Attributes:
        offset: begin of the envelope in its file.
        tail: number of its bytes behind its last record.
    """

    offset: int
    tail: int


def read_records(
    connection: duckdb.DuckDBPyConnection, batch: "RecordBatch", rules: Rules
) -> Reading:
    """Read events and dead letters from records of envelopes, whose offsets are known."""
    apart = _Apart(connection, b"", [], rules)
    lines, dead = apart.read_records(batch)
    return Reading(lines, dead, [], [], [], [], apart.remarks)


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
    if rules.formats and isinstance(rules.formats[0], Text):
        return _read_text(data, segments, rules.formats[0], rules)
    reading, places = _read_objects(connection, data, segments, rules)
    if not rules.formats or not (places.formats != 0).any():
        return reading
    return _Apart(connection, data, segments, rules).of(reading, places)


def _behind_landed(reading: Reading, segments: list[Segment]) -> Reading:
    """The reading without what has landed already: an envelope that has grown is read again from its begin."""
    landed_to = np.zeros(max(segment.file for segment in segments) + 1, np.int64)
    landed_to[[segment.file for segment in segments]] = [one.landed_to for one in segments]
    lines = reading.lines
    is_new = lines["file_offset"].to_numpy() >= landed_to[lines["file"].to_numpy()]
    letters = (one.behind(int(landed_to[one.file])) for one in reading.dead)
    settled = [
        end if segment.offset + end > segment.landed_to else 0
        for end, segment in zip(reading.settled, segments, strict=True)
    ]
    return replace(
        reading,
        lines=views.filter_rows(lines, is_new),
        dead=[letter for letter in letters if letter],
        settled=settled,
    )


@dataclass(frozen=True)
class _Places:
    """Position and format of each event of a reading.

    Attributes:
        positions: position of the first bracket of the event in the batch.
        formats: place in ``rules.formats``, from 1; 0: no format fits; -1: several formats fit.
    """

    positions: npt.NDArray[np.int64]
    formats: npt.NDArray[np.int64]


def _read_objects(
    connection: duckdb.DuckDBPyConnection,
    data: bytes | bytearray,
    segments: list[Segment],
    rules: Rules,
) -> tuple[Reading, _Places]:
    """Read a batch of JSON objects of any format."""
    view = np.frombuffer(data, np.uint8)
    starts = np.cumsum([0, *(segment.length for segment in segments)])
    bounds = _line_bounds(data, starts)
    begins, ends = bounds[:-1], bounds[1:]
    first, last = _trimmed(view, begins, ends)
    is_unclear = first < last
    begun_before = [
        start
        for start, segment in zip(starts[:-1], segments, strict=True)
        if (segment.within_line or segment.within_object) and segment.length
    ]
    # A plain line looks like a single object, is not too long, and its text may stay as it is
    is_plain = is_unclear & (last - first <= rules.max_event_bytes)
    is_plain[is_plain] &= (view[first[is_plain]] == ord("{")) & (
        view[last[is_plain] - 1] == ord("}")
    )
    is_plain[
        _lines_at(
            bounds,
            [*_undecodable(data, bounds), *_to_be_changed(data, rules.unfold), *begun_before],
        )
    ] = False
    # The rest of a line or object from the segment before must be read even if it looks empty
    is_unclear[_lines_at(bounds, begun_before)] = True

    rows = np.flatnonzero(is_plain)
    told = pa.table({"row": rows, "line": views.of(data, first[rows], last[rows])})
    with ThreadPoolExecutor(1) as beside:  # DuckDB alone does not use all cores
        doubtful = beside.submit(doubtful_places, data, view, bounds, rules.max_nesting)
        paths = usual_paths(told["line"].combine_chunks())
        told = _told(connection, told, paths)
        told = _strict(connection, told, _lines_at(bounds, doubtful.result()), rules)
    told = _unique(connection, told, paths)

    careful = CarefulLane(data, starts, segments, rules)
    # The careful lane reads all lines that the native lane did not accept
    is_unclear[told["row"].to_numpy()] = False
    for begin in begins[is_unclear].tolist():
        careful.read_from(begin)
    # An object of the careful lane may reach over lines that the native lane has accepted
    told = views.filter_rows(told, ~careful.covers(begins[told["row"].to_numpy()]))

    rows = told["row"].to_numpy()
    owner = np.searchsorted(starts, begins[rows], side="right") - 1
    shift = np.array([segment.offset for segment in segments] + [0]) - starts
    columns = {
        "file": np.array([segment.file for segment in segments], dtype=np.int32)[owner],
        "file_offset": begins[rows] + shift[owner],
        "length": (last - begins)[rows],
        "line": told["line"],
    }
    lines = pa.table(columns)
    settled = np.array(careful.settled, np.int64)
    np.maximum.at(settled, owner, last[rows] - starts[owner])
    positions, formats = (
        first[rows],
        _formats_by_shape(told["line"], told["shape"], rules.formats),
    )
    if careful.events:
        *values, careful_positions = zip(*careful.events, strict=True)
        columns = dict(zip(lines.column_names, values, strict=True))
        lines = pa.concat_tables([lines, pa.table(columns, lines.schema)])
        positions = np.concatenate([positions, careful_positions])
        formats = np.concatenate(
            [formats, [_format_of(text, rules.formats) for text in columns["line"]]]
        )
    reading = Reading(
        lines,
        careful.dead_letters(),
        careful.consumed,
        settled.tolist(),
        careful.within_line,
        careful.within_object,
        careful.remarks,
        begins_envelope=careful.begins_envelope,
    )
    return reading, _Places(positions, formats.astype(np.int64))


def _formats_by_shape(
    texts: pa.ChunkedArray, shapes: pa.ChunkedArray, formats: tuple[Format, ...]
) -> npt.NDArray[np.int64]:
    """Number of the format of each event.

    All events of a shape have the same keys, so only a single event of each shape is parsed.
    """
    if not formats or not len(texts):
        return np.zeros(len(texts), np.int64)
    examples, shape_of = examples_of(shapes)
    found = np.array(
        [_format_of(texts[row].as_py(), formats) for row in examples.tolist()], np.int64
    )
    numbers: npt.NDArray[np.int64] = found[shape_of]
    return numbers


def _format_of(text: str, formats: tuple[Format, ...]) -> int:
    """Number of the format of an event, see `_Places`."""
    likely = [
        (number, row)
        for number, row in enumerate(formats, start=1)
        if not isinstance(row, Text) and all(marker in text for marker in row.markers)
    ]
    if not likely:
        return 0
    event = json.loads(text)
    fitting = [(number, row) for number, row in likely if row.fits(event)]
    named = [(number, row) for number, row in fitting if not isinstance(row, Unnamed)]
    if len({row.name for _, row in named}) > 1:
        return -1
    return next((number for number, _ in named or fitting), 0)


class _Apart:
    """Converts the events of a reading that are in a format: envelopes, single records, and pieces."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        data: bytes | bytearray,
        segments: list[Segment],
        rules: Rules,
    ) -> None:
        self._connection = connection
        self._data = data
        self._segments = segments
        self._rules = rules
        self.remarks: Counter[str] = Counter()
        # File, offset, bytes outside the records
        self._envelopes: list[tuple[int, int, int]] = []
        # File → begin, end of the last record, and end of each envelope; offsets in the file
        self._opened: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
        self._landed_to = {segment.file: segment.landed_to for segment in segments}
        self._waits_from: dict[int, int] = {}
        self._byte_ranges: dict[tuple[int, int], tuple[int, ...]] = {}

    def of(self, reading: Reading, places: _Places) -> Reading:
        """The reading with its envelopes replaced by their events, and with pieces joined."""
        self.remarks["format_ambiguous"] += int((places.formats == -1).sum())
        dead = list(reading.dead)
        tables: list[pa.Table] = []
        is_left = places.formats <= 0
        is_whole = np.zeros(len(is_left), np.bool_)  # as no named format could open it
        for number, row in enumerate(self._rules.formats, start=1):
            rows = np.flatnonzero(places.formats == number)
            if not len(rows):
                continue
            found = views.take_rows(reading.lines, rows)
            match row:
                case Envelope(path=()):
                    tables.append(self._converted(found, row))
                case Envelope():
                    is_whole[rows] = is_left[rows] = ~self._take_apart(
                        found, places.positions[rows], row, tables, dead
                    )
                case Unnamed():
                    is_whole[rows] = is_left[rows] = True
                case Pieces():
                    is_left[rows] = True
        rows = np.flatnonzero(is_whole)
        found = views.take_rows(reading.lines, rows)
        for envelope, of_row in self._unnamed(found):
            is_left[rows[of_row]] = ~self._take_apart(
                views.take_rows(found, of_row),
                places.positions[rows[of_row]],
                envelope,
                tables,
                dead,
            )
        left = views.filter_rows(reading.lines, is_left)
        reading = replace(reading, lines=pa.concat_tables([left, *tables]), dead=dead)
        for number, row in enumerate(self._rules.formats, start=1):
            if isinstance(row, Pieces):
                reading = self._joined(
                    reading, row, np.flatnonzero(places.formats[is_left] == number)
                )
        # A row that was joined to another row, or that waits, has length 0
        kept = reading.lines["length"].to_numpy() > 0
        reading = replace(reading, lines=views.filter_rows(reading.lines, kept))
        envelope_bytes: Counter[int] = Counter()
        for file, offset, size in self._envelopes:
            envelope_bytes[file] += (
                size if offset < self._waits_from.get(file, offset + 1) else 0
            )
        remarks = Counter(reading.remarks) + self.remarks
        settled = list(reading.settled)
        open_envelopes = {}
        for number, segment in enumerate(self._segments):
            if around := self._around(segment, segment.offset + settled[number]):
                begin, last, end = around
                settled[number] = last - segment.offset
                open_envelopes[number] = OpenEnvelope(begin, end - last)
                envelope_bytes[segment.file] -= end - last
        return replace(
            reading,
            settled=settled,
            remarks=remarks,
            envelope_bytes=envelope_bytes,
            byte_ranges=self._byte_ranges,
            open_envelopes=open_envelopes,
        )

    def _unnamed(self, lines: pa.Table) -> Iterator[tuple[Envelope, npt.NDArray[np.int64]]]:
        """Row of an envelope that is found by its records, and the indexes of the objects that have this form."""
        unnamed = next((row for row in self._rules.formats if isinstance(row, Unnamed)), None)
        if unnamed and len(lines):
            for envelope, rows in _by_row(lines, unnamed).items():
                yield envelope, np.array(rows)

    def _around(self, segment: Segment, settled: int) -> tuple[int, int, int] | None:
        """Begin, end of the last record, and end of the envelope that holds the byte before an offset, if any."""
        for envelope in self._opened.get(segment.file, ()):
            begin, _, end = envelope
            if begin < settled <= end:
                return envelope
        return None

    def _take_apart(
        self,
        lines: pa.Table,
        positions: npt.NDArray[np.int64],
        row: Envelope,
        tables: list[pa.Table],
        dead: list[DeadLetter],
    ) -> npt.NDArray[np.bool_]:
        """Add the records of envelopes to ``tables`` and ``dead``. Returns which of the objects are envelopes."""
        records, letters, is_envelope = self._records(lines, positions, row)
        tables.append(records)
        dead += letters
        return is_envelope

    def _converted(self, lines: pa.Table, row: Envelope) -> pa.Table:
        """Events whose whole object is a single record; without those objects that are no event."""
        if row.holds_events is not always:
            texts = lines["line"].to_pylist()
            is_event = np.array([row.holds_events(loaded(text)) for text in texts], np.bool_)
            self._leave_out(views.filter_rows(lines, ~is_event), row)
            return views.filter_rows(lines, is_event)
        self.remarks[f"format_{row.name}"] += len(lines)
        texts = [event_of(line, row, ())[0] for line in lines["line"].to_pylist()]
        return lines.set_column(
            lines.column_names.index("line"), "line", pa.array(texts, lines["line"].type)
        )

    def _leave_out(self, lines: pa.Table, row: Envelope) -> None:
        """Count the bytes of objects that hold no event."""
        self.remarks[f"{row.name}_without_events"] += len(lines)
        places = (lines[name].to_pylist() for name in ("file", "file_offset", "length"))
        self._envelopes += zip(*places, strict=True)

    def _records(
        self, lines: pa.Table, positions: npt.NDArray[np.int64], row: Envelope
    ) -> tuple[pa.Table, list[DeadLetter], npt.NDArray[np.bool_]]:
        """Open envelopes.

        Returns:
            the records as events; their dead letters; for each object, whether it is an envelope.
        """
        is_envelope = np.zeros(len(lines), np.bool_)
        batch = RecordBatch(row)
        ends = lines["file_offset"].to_numpy() + lines["length"].to_numpy()
        for place, (file, end, position) in enumerate(
            zip(lines["file"].to_pylist(), ends.tolist(), positions.tolist(), strict=True)
        ):
            with contextlib.suppress(NoEnvelopeError, LookupError, TypeError):
                opened = open_envelope(self._data, position, row)
                shift = end - opened.end
                batch.add(self._data, opened, file, shift, landed_to=self._landed_to[file])
                whole = opened.behind(self._landed_to[file] - shift)
                self._envelopes.append((file, opened.begin + shift, whole.outside))
                if opened.spans:
                    last = opened.spans[-1].end + shift
                    self._opened[file].append((opened.begin + shift, last, end))
                is_envelope[place] = True
        read, letters = self.read_records(batch)
        return read, letters, is_envelope

    def read_records(self, batch: "RecordBatch") -> tuple[pa.Table, list[DeadLetter]]:
        """Read the records of a batch. Returns the events and the dead letters."""
        rules = replace(self._rules, formats=())
        inner, _ = _read_objects(self._connection, b"".join(batch.texts), batch.segments, rules)
        numbers = inner.lines["file"].to_pylist()
        texts = []
        for number, line in zip(numbers, inner.lines["line"].to_pylist(), strict=True):
            text, is_cut = event_of(line, batch.row, batch.around[number])
            self.remarks["envelope_fields_left_out"] += is_cut
            texts.append(text)
        columns = {
            "file": [batch.files[number] for number in numbers],
            "file_offset": inner.lines["file_offset"],
            "length": inner.lines["length"],
            "line": texts,
        }
        self.remarks.update(inner.remarks)
        self.remarks[f"format_{batch.row.name}"] += len(texts)
        self.remarks[f"{batch.row.name}_without_events"] += batch.without_events
        dead = inner.dead
        if batch.row.pair:
            columns["length"] = [len(batch.raw[number]) for number in numbers]
            dead = [batch.letter(one) for one in {one.file: one for one in dead}.values()]
        dead = [replace(letter, file=batch.files[letter.file]) for letter in dead]
        return pa.table(columns, inner.lines.schema), dead

    def _joined(self, reading: Reading, row: Pieces, rows: npt.NDArray[np.int64]) -> Reading:
        """The reading with the pieces of lines joined; the length of a row to remove becomes 0."""
        if not len(rows):
            return reading
        if row.event:
            reading = replace(reading, lines=self._changed(reading.lines, row.event, rows))
        query = f"""SELECT {row.stream} AS stream, {row.is_whole} AS is_whole,
            coalesce(json_type(line, '$."{row.text}"') = 'VARCHAR', false) AS is_text FROM batch_lines"""
        asked = _ask(
            self._connection, query, views.take_rows(reading.lines.select(["line"]), rows)
        )
        is_text = asked["is_text"].to_numpy()
        rows, asked = rows[is_text], views.filter_rows(asked, is_text)
        self.remarks[f"format_{row.name}"] += len(rows)
        is_whole = asked["is_whole"].to_numpy()
        if is_whole.all():
            return reading
        streams = asked["stream"].to_pylist()
        files = reading.lines["file"].to_numpy()
        for number, segment in enumerate(self._segments):
            mine = np.flatnonzero(files[rows] == segment.file)
            if not is_whole[mine].all():
                pieces = {
                    int(rows[one]): (streams[one] or "", bool(is_whole[one])) for one in mine
                }
                reading = self._joined_in(reading, number, row, pieces)
        return reading

    def _changed(
        self,
        lines: pa.Table,
        event: Callable[[Event, Sequence[Event]], Event],
        rows: npt.NDArray[np.int64],
    ) -> pa.Table:
        texts = lines["line"].to_pylist()
        for one in rows.tolist():
            if "[" in texts[one]:
                texts[one] = written(event(loaded(texts[one]), ()))
        place = lines.column_names.index("line")
        return lines.set_column(place, "line", pa.array(texts, lines["line"].type))

    def _joined_in(
        self, reading: Reading, number: int, row: Pieces, pieces: Mapping[int, tuple[str, bool]]
    ) -> Reading:
        """The reading with the pieces of a segment joined; the length of a row to remove becomes 0.

        Args:
            reading: the reading of the batch.
            number: number of the segment.
            row: the format.
            pieces: row of the reading → stream of the piece, and whether the line ends with the piece.
        """
        segment = self._segments[number]
        begins, lengths = (
            reading.lines["file_offset"].to_numpy(),
            reading.lines["length"].to_numpy().copy(),
        )
        order = sorted(pieces, key=lambda one: int(begins[one]))
        found = [
            Piece(int(begins[one]), int(begins[one] + lengths[one]), *pieces[one])
            for one in order
        ]
        joined = join(
            found,
            waits=not (segment.at_end and segment.sealed),
            max_bytes=self._rules.max_event_bytes,
        )
        self.remarks["partial"] += len(joined.partial)
        texts = (
            reading.lines["line"].to_pylist()
            if any(len(group) > 1 for group in joined.events)
            else None
        )
        for group in joined.events:
            first, *others = [order[place] for place in group]
            if others and texts:
                event = loaded(texts[first])
                event[row.text] += "".join(loaded(texts[other])[row.text] for other in others)
                event = _without(event, row.marks_of_pieces)
                texts[first] = written(event)
                lengths[first] += lengths[others].sum()
                lengths[others] = 0
                place = segment.file, int(begins[first])
                self._byte_ranges[place] = ranges_of([found[number] for number in group])
        # From this offset on, everything is read again with more bytes
        if joined.waits_from is not None:
            is_mine = reading.lines["file"].to_numpy() == segment.file
            lengths[is_mine & (begins >= joined.waits_from)] = 0
            reading = self._waiting(reading, number, joined.waits_from)
        columns = {"length": pa.array(lengths)}
        if texts:
            columns["line"] = pa.array(texts, reading.lines["line"].type)
        lines = reading.lines
        for name, column in columns.items():
            lines = lines.set_column(lines.column_names.index(name), name, column)
        return replace(reading, lines=lines)

    def _waiting(self, reading: Reading, number: int, waits_from: int) -> Reading:
        """The reading without the events from ``waits_from`` on in a segment: they are read again, with more bytes."""
        segment = self._segments[number]
        self._waits_from[segment.file] = waits_from
        lines = reading.lines
        begins, lengths = lines["file_offset"].to_numpy(), lines["length"].to_numpy()
        is_before = (lines["file"].to_numpy() == segment.file) & (begins < waits_from)
        dead = [
            one
            for one in reading.dead
            if one.file != segment.file or one.file_offset < waits_from
        ]
        ends = [one.file_offset + one.length for one in dead if one.file == segment.file]
        ends += (begins + lengths)[is_before].tolist()
        ends += [
            ranges[-1]
            for (file, begin), ranges in self._byte_ranges.items()
            if file == segment.file and begin < waits_from
        ]
        consumed, settled = list(reading.consumed), list(reading.settled)
        within_line, within_object = list(reading.within_line), list(reading.within_object)
        consumed[number] = waits_from - segment.offset
        settled[number] = max(
            (min(end, waits_from) - segment.offset for end in ends), default=0
        )
        within_line[number], within_object[number] = False, 0
        return replace(
            reading,
            dead=dead,
            consumed=consumed,
            settled=settled,
            within_line=within_line,
            within_object=within_object,
        )


@dataclass
class RecordBatch:
    """Records of envelopes of the same format, to be read together.

    Attributes:
        row: the format.
        raw: bytes of each record in its file.
        texts: JSON of each record: its bytes, or for a pair the JSON of an object.
        segments: position of each record in its file; its field ``file`` holds the number of the record, its length is
            that of the JSON.
        files: index of the file of each record.
        around: for each record the result of `envelopes.Opened.around`.
        without_events: number of envelopes that hold no event.
    """

    row: Envelope
    raw: list[bytes] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    around: list[tuple[Event, ...]] = field(default_factory=list)
    without_events: int = 0

    def add(
        self, data: Buffer, opened: Opened, file: int, shift: int, *, landed_to: int = 0
    ) -> None:
        """Add the records of an envelope; if it holds no events, count it and forget its records.

        Args:
            data: the bytes that hold the envelope.
            opened: the envelope.
            file: index of its file.
            shift: difference between the byte offset in the file and the position in ``data``.
            landed_to: records before this offset in the file have landed.
        """
        if not opened.spans or not self.row.holds_events(opened.outer):
            self.without_events += 1
            opened.spans.clear()
        self.add_records(data, opened, opened.behind(landed_to - shift).spans, file, shift)

    def add_records(
        self, data: Buffer, opened: Opened, spans: Sequence[Span], file: int, shift: int
    ) -> None:
        """Add some records of an envelope."""
        around = [opened.around(span) for span in spans]
        for span, fields in zip(spans, around, strict=True):
            raw = bytes(data[span.begin : span.end])
            text = self.row.pair(raw) if self.row.pair else raw
            place = len(self.segments), span.begin + shift, len(text)
            self.segments.append(Segment(*place, sealed=True))
            self.raw.append(raw)
            self.texts.append(text)
            self.files.append(file)
            self.around.append(fields)

    def letter(self, letter: DeadLetter) -> DeadLetter:
        """The dead letter of a whole record, for a dead letter from its JSON."""
        raw, segment = self.raw[letter.file], self.segments[letter.file]
        return replace(letter, file_offset=segment.offset, length=len(raw), raw=raw)


def _without(event: Event, names: Sequence[str]) -> Event:
    return {name: value for name, value in event.items() if name not in names}


def _by_row(lines: pa.Table, unnamed: Unnamed) -> dict[Envelope, list[int]]:
    """Row of an envelope → indexes of the objects that have this form; other objects are left out."""
    found: defaultdict[Envelope, list[int]] = defaultdict(list)
    for index, text in enumerate(lines["line"].to_pylist()):
        if row := unnamed.row_of(text):
            found[row].append(index)
    return found


def _read_text(
    data: bytes | bytearray, segments: list[Segment], row: Text, rules: Rules
) -> Reading:
    """Read a batch in a text format."""
    texts = _Texts(row, rules)
    begin = 0
    for segment in segments:
        texts.read(bytes(data[begin : begin + segment.length]), segment)
        begin += segment.length
    schema = pa.schema(
        {
            "file": pa.int32(),
            "file_offset": pa.int64(),
            "length": pa.int64(),
            "line": pa.string_view(),
        }
    )
    rows = [dict(zip(schema.names, event, strict=True)) for event in texts.events]
    lines = pa.Table.from_pylist(rows, schema)
    none = [False] * len(segments), [0] * len(segments)
    return Reading(
        lines,
        texts.dead,
        texts.consumed,
        texts.settled,
        *none,
        texts.remarks,
        byte_ranges=texts.byte_ranges,
    )


class _Texts:
    """Reads segments of files in a text format, in order."""

    def __init__(self, row: Text, rules: Rules) -> None:
        self._row = row
        self._rules = rules
        self.events: list[tuple[int, int, int, str]] = []
        self.dead: list[DeadLetter] = []
        self.consumed: list[int] = []
        self.settled: list[int] = []
        self.remarks: Counter[str] = Counter()
        self.byte_ranges: dict[tuple[int, int], tuple[int, ...]] = {}

    def read(self, data: bytes, segment: Segment) -> None:
        """Read a segment."""
        is_over = segment.at_end and segment.sealed
        whole = len(data) if is_over else self._row.ends(data)
        if not whole and len(data) > self._rules.max_event_bytes:
            self._letter(segment, data, 0, len(data), "too_long")
            self._done(len(data), len(data))
            return
        records = list(self._row.records(data[:whole]))
        pieces = [
            Piece(one.begin, one.end, one.stream, one.is_whole or one.event is None)
            for one in records
        ]
        joined = join(pieces, waits=not is_over, max_bytes=self._rules.max_event_bytes)
        self.remarks["partial"] += len(joined.partial)
        for group in joined.events:
            self._event(data, segment, [records[place] for place in group])
        consumed = whole if joined.waits_from is None else joined.waits_from
        ends = [pieces[group[-1]].end for group in joined.events]
        self._done(consumed, max(ends, default=0))

    def _done(self, consumed: int, settled: int) -> None:
        self.consumed.append(consumed)
        self.settled.append(settled)

    def _event(self, data: bytes, segment: Segment, records: list[Record]) -> None:
        first, length = records[0], sum(one.end - one.begin for one in records)
        if first.event is None:
            self._letter(segment, data, first.begin, first.end, f"not_{self._row.name}")
            return
        event = dict(first.event)
        if len(records) > 1:
            event[self._row.text] = "".join(
                one.event[self._row.text] for one in records if one.event
            )
            event = _without(event, self._row.marks_of_pieces)
        text, remarks = cleaned(
            json.dumps(event, ensure_ascii=False), self._rules.unfold, self._rules.max_nesting
        )
        if len(text) > self._rules.max_event_bytes:
            for one in records:
                self._letter(segment, data, one.begin, one.end, "too_long")
            return
        self.remarks.update((*remarks, f"format_{self._row.name}"))
        offset = segment.offset + first.begin
        self.events.append((segment.file, offset, length, text))
        if len(records) > 1:
            self.byte_ranges[segment.file, offset] = ranges_of(records, segment.offset)

    def _letter(self, segment: Segment, data: bytes, begin: int, end: int, reason: str) -> None:
        raw = data[begin:end]
        last = self.dead[-1] if self.dead else None
        begin += segment.offset
        if last and (last.file, last.file_offset + last.length, last.reason) == (
            segment.file,
            begin,
            reason,
        ):
            begin, raw = last.file_offset, last.raw + raw
            self.dead.pop()
        self.dead.append(DeadLetter(segment.file, begin, len(raw), reason, raw))


def _told(
    connection: duckdb.DuckDBPyConnection, lines: pa.Table, paths: tuple[str, ...]
) -> pa.Table:
    """The lines that DuckDB can parse as JSON, with their ``shape`` at these paths."""
    query = f"SELECT {shape_at(paths)} AS shape FROM batch_lines"
    try:
        told = _ask(connection, query, lines)
    except duckdb.InvalidInputException:  # rare, so the lines are checked only after a failure
        is_json = _ask(
            connection, "SELECT json_valid(line) AS is_json FROM batch_lines", lines
        )["is_json"]
        lines = views.filter_rows(lines, is_json.to_numpy())
        told = _ask(connection, query, lines)
    return pa.table([*lines.columns, *told.columns], [*lines.column_names, *told.column_names])


def _strict(
    connection: duckdb.DuckDBPyConnection,
    told: pa.Table,
    doubtful: npt.NDArray[np.int64],
    rules: Rules,
) -> pa.Table:
    """The lines without those doubtful lines that are not strict JSON."""
    suspects = np.flatnonzero(np.isin(told["row"].to_numpy(), doubtful))
    if not len(suspects):
        return told
    lines = views.take_rows(told.select(["line"]), suspects)
    is_strict = np.ones(len(told), np.bool_)
    is_strict[suspects] = _ask(connection, _STRICT, lines, max_nesting=rules.max_nesting)[
        "is_strict"
    ].to_numpy()
    return views.filter_rows(told, is_strict)


def _unique(
    connection: duckdb.DuckDBPyConnection, told: pa.Table, paths: tuple[str, ...]
) -> pa.Table:
    """The events without those that hold a key twice."""
    if not paths:
        return views.filter_rows(told, ~repeating(told["line"], told["shape"]))
    is_repeating = untold(told["line"], told["shape"], paths)
    rows = np.flatnonzero(is_repeating)
    if len(rows):
        lines = views.take_rows(told.select(["line"]), rows)
        shapes = _ask(connection, f"SELECT {ANYWHERE} AS shape FROM batch_lines", lines)[
            "shape"
        ]
        is_repeating[rows] = repeating(lines["line"], shapes)
    return views.filter_rows(told, ~is_repeating)


def _ask(
    connection: duckdb.DuckDBPyConnection, query: str, lines: pa.Table, **parameters: object
) -> pa.Table:
    """Result of a query over the table ``batch_lines``, which has a single column ``line``."""
    lines = lines.select(["line"])
    tasks = pa.Table.from_batches(lines.to_batches(max_chunksize=ROWS_A_TASK), lines.schema)
    connection.register("batch_lines", tasks)
    try:
        return connection.sql(query, params=parameters or None).to_arrow_table()
    # DuckDB quotes text that is not JSON, and may cut it within a UTF-8 character
    except UnicodeDecodeError:
        raise duckdb.InvalidInputException("not JSON") from None
    finally:
        connection.unregister("batch_lines")


def _trimmed(
    view: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Begin and end of the text between the separators of each line.

    After `_MOST_SEPARATORS` separators the search stops; such a line is left to the careful lane.
    """
    first, last = begins.copy(), ends.copy()
    for edge, step, where, separators in (
        (last, -1, -1, _AFTER_EVENT),
        (first, 1, 0, _BEFORE_EVENT),
    ):
        rows = np.flatnonzero(first < last)
        for _ in range(_MOST_SEPARATORS):
            rows = rows[separators[view[edge[rows] + where]]]
            edge[rows] += step
            rows = rows[first[rows] < last[rows]]
            if not len(rows):
                break
    return first, last


def _lines_at(bounds: npt.NDArray[np.int64], positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Numbers of the lines that hold these bytes."""
    return np.searchsorted(bounds, np.asarray(positions, np.int64), side="right") - 1


def _undecodable(data: bytes | bytearray, bounds: npt.NDArray[np.int64]) -> Iterator[int]:
    """Position of the first byte that is not UTF-8 in each line with such a byte."""
    position, rest = 0, memoryview(data)
    whole = pa.Array.from_buffers(
        pa.large_string(), 1, [None, pa.py_buffer(np.array([0, len(data)])), pa.py_buffer(data)]
    )
    with contextlib.suppress(pa.ArrowInvalid):
        whole.validate(full=True)
        return
    while position < len(data):
        try:
            codecs.utf_8_decode(rest[position:], "strict", True)
        except UnicodeDecodeError as error:
            yield position + error.start
            position = int(
                bounds[np.searchsorted(bounds, position + error.start, side="right")]
            )
        else:
            return


def _to_be_changed(data: bytes | bytearray, unfold: tuple[str, ...]) -> Iterator[int]:
    """Positions of text that must be changed (``\\u0000``), or that is to be unfolded."""
    # The search for a single byte is fast
    position = data.find(b"\\u0000", data.find(b"\\")) if b"\\" in data else -1
    while position >= 0:
        yield position
        position = data.find(b"\\u0000", position + 1)
    for name in unfold:
        for match in re.finditer(
            re.escape(json.dumps(name).encode()) + rb"\s*:\s*\"\s*[\[{]", data
        ):
            yield match.start()


def _line_bounds(
    data: bytes | bytearray, starts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Positions where lines begin, and at last the end of the data. Each segment begins a new line."""
    view = np.frombuffer(data, np.uint8)
    blocks = range(0, len(view), _BLOCK)
    found = [
        np.flatnonzero(view[start : start + _BLOCK] == ord("\n")) + (start + 1)
        for start in blocks
    ]
    newlines = np.concatenate(found) if found else np.array([], np.int64)
    # NUL ends a line too, but nearly no file has any. A run of NULs belongs to the next line
    if b"\0" in data:
        nuls = view == 0
        nuls[1:] &= view[:-1] != 0
        newlines = np.union1d(newlines, np.flatnonzero(nuls) + 1)
    places = np.searchsorted(newlines, starts)
    is_new = np.append(newlines, -1)[places] != starts
    # An empty segment begins where the next segment begins
    is_new[1:] &= starts[1:] != starts[:-1]
    return np.insert(newlines, places[is_new], starts[is_new])
