"""Makes events of objects in a format: opens envelopes, converts single records, joins pieces of lines."""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_assets.sources import views
from obs_assets.sources.careful import DeadLetter, Rules, Segment
from obs_assets.sources.envelopes import (
    Buffer,
    NoEnvelopeError,
    Opened,
    Span,
    event_of,
    open_envelope,
)
from obs_assets.sources.formats import Envelope, Pieces, Unnamed
from obs_assets.sources.formats.base import Event, always
from obs_assets.sources.json_text import loaded, written
from obs_assets.sources.native import Places, ask, read_objects
from obs_assets.sources.pieces import Piece, join, ranges_of, without
from obs_assets.sources.reading import OpenEnvelope, Reading


def read_records(
    connection: duckdb.DuckDBPyConnection, batch: "RecordBatch", rules: Rules
) -> Reading:
    """Read events and dead letters from records of envelopes, whose offsets are known."""
    apart = Unwrapping(connection, b"", [], rules)
    lines, dead = apart.read_records(batch)
    return Reading(lines, dead, [], [], [], [], apart.remarks)


class Unwrapping:
    """Makes events of the objects of a reading that are in a format: envelopes, single records, and pieces.

    Attributes:
        remarks: remark → number of events, see `Reading`.
    """

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
        # Events and dead letters of the objects that were unwrapped
        self._tables: list[pa.Table] = []
        self._dead: list[DeadLetter] = []
        # File, offset, bytes outside the records
        self._envelopes: list[tuple[int, int, int]] = []
        # File → begin, end of the last record, and end of each envelope; offsets in the file
        self._opened: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
        self._landed_to = {segment.file: segment.landed_to for segment in segments}
        self._waits_from: dict[int, int] = {}
        self._byte_ranges: dict[tuple[int, int], tuple[int, ...]] = {}

    def of(self, reading: Reading, places: Places) -> Reading:
        """The reading with its envelopes replaced by their events, and with pieces joined."""
        self.remarks["format_ambiguous"] += int((places.formats == -1).sum())
        is_left = self._unwrap(reading.lines, places)
        left = views.filter_rows(reading.lines, is_left)
        lines = pa.concat_tables([left, *self._tables])
        reading = replace(reading, lines=lines, dead=[*reading.dead, *self._dead])
        for number, row in enumerate(self._rules.formats, start=1):
            if isinstance(row, Pieces):
                rows = np.flatnonzero(places.formats[is_left] == number)
                reading = self._joined(reading, row, rows)
        # A row that was joined to another row, or that waits, has length 0
        is_kept = reading.lines["length"].to_numpy() > 0
        reading = replace(reading, lines=views.filter_rows(reading.lines, is_kept))
        return self._with_envelopes(reading)

    def _unwrap(self, lines: pa.Table, places: Places) -> npt.NDArray[np.bool_]:
        """Unwrap the objects that are in a format. Returns which of the objects stay as they are."""
        is_left = places.formats <= 0
        # Objects that no named format could open
        is_whole = np.zeros(len(is_left), np.bool_)
        for number, row in enumerate(self._rules.formats, start=1):
            rows = np.flatnonzero(places.formats == number)
            if not len(rows):
                continue
            found = views.take_rows(lines, rows)
            match row:
                case Envelope(path=()):
                    self._tables.append(self._converted(found, row))
                case Envelope():
                    is_opened = self._open(found, places.positions[rows], row)
                    is_whole[rows] = is_left[rows] = ~is_opened
                case Unnamed():
                    is_whole[rows] = is_left[rows] = True
                case Pieces():
                    is_left[rows] = True
        rows = np.flatnonzero(is_whole)
        whole = views.take_rows(lines, rows)
        for row, indexes in self._unnamed(whole):
            found = views.take_rows(whole, indexes)
            is_left[rows[indexes]] = ~self._open(found, places.positions[rows[indexes]], row)
        return is_left

    def _unnamed(self, lines: pa.Table) -> Iterator[tuple[Envelope, npt.NDArray[np.int64]]]:
        """Row of an envelope that is found by its records, and the indexes of the objects that have this form."""
        unnamed = next((row for row in self._rules.formats if isinstance(row, Unnamed)), None)
        if unnamed and len(lines):
            for envelope, indexes in _by_row(lines, unnamed).items():
                yield envelope, np.array(indexes)

    def _with_envelopes(self, reading: Reading) -> Reading:
        """The reading with the counted bytes of envelopes, settled at the last record of an open envelope."""
        envelope_bytes: Counter[int] = Counter()
        for file, offset, size in self._envelopes:
            waits_from = self._waits_from.get(file)
            is_waiting = waits_from is not None and offset >= waits_from
            envelope_bytes[file] += 0 if is_waiting else size
        settled = list(reading.settled)
        open_envelopes = {}
        for number, segment in enumerate(self._segments):
            around = self._around(segment, segment.offset + settled[number])
            if around is None:
                continue
            begin, last, end = around
            settled[number] = last - segment.offset
            open_envelopes[number] = OpenEnvelope(begin, end - last)
            envelope_bytes[segment.file] -= end - last
        return replace(
            reading,
            settled=settled,
            remarks=Counter(reading.remarks) + self.remarks,
            envelope_bytes=envelope_bytes,
            byte_ranges=self._byte_ranges,
            open_envelopes=open_envelopes,
        )

    def _around(self, segment: Segment, settled: int) -> tuple[int, int, int] | None:
        """Begin, end of the last record, and end of the envelope that holds the byte before an offset, if any."""
        for envelope in self._opened.get(segment.file, ()):
            begin, _, end = envelope
            if begin < settled <= end:
                return envelope
        return None

    def _converted(self, lines: pa.Table, row: Envelope) -> pa.Table:
        """Events whose whole object is a single record; without those objects that are no event."""
        texts = lines["line"].to_pylist()
        if row.holds_events is not always:
            is_event = np.array([row.holds_events(loaded(text)) for text in texts], np.bool_)
            self._leave_out(views.filter_rows(lines, ~is_event), row)
            return views.filter_rows(lines, is_event)
        self.remarks[f"format_{row.name}"] += len(lines)
        return _with_texts(lines, [event_of(text, row, ())[0] for text in texts])

    def _leave_out(self, lines: pa.Table, row: Envelope) -> None:
        """Count the bytes of objects that hold no event."""
        self.remarks[f"{row.name}_without_events"] += len(lines)
        places = (lines[name].to_pylist() for name in ("file", "file_offset", "length"))
        self._envelopes += zip(*places, strict=True)

    def _open(
        self, lines: pa.Table, positions: npt.NDArray[np.int64], row: Envelope
    ) -> npt.NDArray[np.bool_]:
        """Open envelopes, and keep the events and dead letters of their records.

        Args:
            lines: the objects.
            positions: position of the first bracket of each object in the batch.
            row: the format.

        Returns:
            for each object, whether it is an envelope.
        """
        is_envelope = np.zeros(len(lines), np.bool_)
        batch = RecordBatch(row)
        files = lines["file"].to_pylist()
        ends = lines["file_offset"].to_numpy() + lines["length"].to_numpy()
        found = zip(files, ends.tolist(), positions.tolist(), strict=True)
        for place, (file, end, position) in enumerate(found):
            with contextlib.suppress(NoEnvelopeError, LookupError, TypeError):
                opened = open_envelope(self._data, position, row)
                self._take_records(batch, opened, file, end)
                is_envelope[place] = True
        lines, letters = self.read_records(batch)
        self._tables.append(lines)
        self._dead += letters
        return is_envelope

    def _take_records(self, batch: "RecordBatch", opened: Opened, file: int, end: int) -> None:
        """Add the records of an envelope that ends at an offset of its file."""
        shift = end - opened.end
        landed_to = self._landed_to[file]
        batch.add(self._data, opened, file, shift, landed_to=landed_to)
        begin = opened.begin + shift
        self._envelopes.append((file, begin, opened.behind(landed_to - shift).outside))
        if opened.spans:
            self._opened[file].append((begin, opened.spans[-1].end + shift, end))

    def read_records(self, batch: "RecordBatch") -> tuple[pa.Table, list[DeadLetter]]:
        """Read the records of a batch. Returns the events and the dead letters."""
        rules = replace(self._rules, formats=())
        inner, _ = read_objects(self._connection, b"".join(batch.texts), batch.segments, rules)
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
            # A pair is dead as a whole, and once
            first_of = {letter.file: letter for letter in dead}
            dead = [batch.letter(letter) for letter in first_of.values()]
        dead = [replace(letter, file=batch.files[letter.file]) for letter in dead]
        return pa.table(columns, inner.lines.schema), dead

    def _joined(self, reading: Reading, row: Pieces, rows: npt.NDArray[np.int64]) -> Reading:
        """The reading with the pieces of lines joined; the length of a row to remove becomes 0."""
        if not len(rows):
            return reading
        if row.event:
            reading = replace(reading, lines=_changed(reading.lines, row.event, rows))
        query = f"""SELECT {row.stream} AS stream, {row.is_whole} AS is_whole,
            coalesce(json_type(line, '$."{row.text}"') = 'VARCHAR', false) AS is_text FROM batch_lines"""
        lines = views.take_rows(reading.lines.select(["line"]), rows)
        asked = ask(self._connection, query, lines)
        is_text = asked["is_text"].to_numpy()
        rows, asked = rows[is_text], views.filter_rows(asked, is_text)
        self.remarks[f"format_{row.name}"] += len(rows)
        is_whole = asked["is_whole"].to_numpy()
        if is_whole.all():
            return reading
        streams = asked["stream"].to_pylist()
        files = reading.lines["file"].to_numpy()[rows]
        for number, segment in enumerate(self._segments):
            of_segment = np.flatnonzero(files == segment.file)
            if not is_whole[of_segment].all():
                pieces = {
                    int(rows[index]): (streams[index] or "", bool(is_whole[index]))
                    for index in of_segment
                }
                reading = self._joined_in(reading, number, row, pieces)
        return reading

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
        begins = reading.lines["file_offset"].to_numpy()
        lengths = reading.lines["length"].to_numpy().copy()
        order = sorted(pieces, key=lambda index: int(begins[index]))
        ends = begins + lengths
        found = [Piece(int(begins[index]), int(ends[index]), *pieces[index]) for index in order]
        joined = join(
            found,
            waits=not (segment.at_end and segment.sealed),
            max_bytes=self._rules.max_event_bytes,
        )
        self.remarks["partial"] += len(joined.partial)
        lines = reading.lines
        groups = [group for group in joined.events if len(group) > 1]
        if groups:
            texts = lines["line"].to_pylist()
            for group in groups:
                first, *others = [order[place] for place in group]
                texts[first] = _joined_text(texts[first], [texts[one] for one in others], row)
                lengths[first] += lengths[others].sum()
                lengths[others] = 0
                place = segment.file, int(begins[first])
                self._byte_ranges[place] = ranges_of([found[number] for number in group])
            lines = _with_texts(lines, texts)
        # From this offset on, everything is read again with more bytes
        if joined.waits_from is not None:
            is_mine = lines["file"].to_numpy() == segment.file
            lengths[is_mine & (begins >= joined.waits_from)] = 0
            reading = self._waiting(reading, number, joined.waits_from)
        place_of_lengths = lines.column_names.index("length")
        lines = lines.set_column(place_of_lengths, "length", pa.array(lengths))
        return replace(reading, lines=lines)

    def _waiting(self, reading: Reading, number: int, waits_from: int) -> Reading:
        """The reading without the events from ``waits_from`` on in a segment: they are read again, with more bytes."""
        segment = self._segments[number]
        self._waits_from[segment.file] = waits_from
        dead = [
            letter
            for letter in reading.dead
            if letter.file != segment.file or letter.file_offset < waits_from
        ]
        consumed, settled = list(reading.consumed), list(reading.settled)
        within_line, within_object = list(reading.within_line), list(reading.within_object)
        consumed[number] = waits_from - segment.offset
        last_end = max(self._ends(reading.lines, dead, segment.file, waits_from), default=0)
        settled[number] = max(min(last_end, waits_from) - segment.offset, 0)
        within_line[number], within_object[number] = False, 0
        return replace(
            reading,
            dead=dead,
            consumed=consumed,
            settled=settled,
            within_line=within_line,
            within_object=within_object,
        )

    def _ends(
        self, lines: pa.Table, dead: Sequence[DeadLetter], file: int, before: int
    ) -> Iterator[int]:
        """Ends of the events and dead letters of a file that begin before an offset."""
        begins, lengths = lines["file_offset"].to_numpy(), lines["length"].to_numpy()
        is_before = (lines["file"].to_numpy() == file) & (begins < before)
        yield from (begins + lengths)[is_before].tolist()
        for letter in dead:
            if letter.file == file:
                yield letter.file_offset + letter.length
        for (of_file, begin), ranges in self._byte_ranges.items():
            if of_file == file and begin < before:
                yield ranges[-1]


def _with_texts(lines: pa.Table, texts: list[str]) -> pa.Table:
    """The lines with other texts."""
    place = lines.column_names.index("line")
    return lines.set_column(place, "line", pa.array(texts, lines["line"].type))


def _changed(
    lines: pa.Table,
    event: Callable[[Event, Sequence[Event]], Event],
    rows: npt.NDArray[np.int64],
) -> pa.Table:
    """The lines in which these rows hold what a format makes of their objects."""
    texts = lines["line"].to_pylist()
    for row in rows.tolist():
        if "[" in texts[row]:
            texts[row] = written(event(loaded(texts[row]), ()))
    return _with_texts(lines, texts)


def _joined_text(first: str, others: Sequence[str], row: Pieces) -> str:
    """The event of several pieces: the fields of the first piece with the text of all."""
    event = loaded(first)
    event[row.text] += "".join(loaded(other)[row.text] for other in others)
    return written(without(event, row.marks_of_pieces))


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


def _by_row(lines: pa.Table, unnamed: Unnamed) -> dict[Envelope, list[int]]:
    """Row of an envelope → indexes of the objects that have this form; other objects are left out."""
    found: defaultdict[Envelope, list[int]] = defaultdict(list)
    for index, text in enumerate(lines["line"].to_pylist()):
        if row := unnamed.row_of(text):
            found[row].append(index)
    return found
