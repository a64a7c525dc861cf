"""The text lane: reads files in a text format, in which a line or block of text is a record."""

import json
from collections import Counter

import pyarrow as pa

from obs_assets.sources.careful import TOO_LONG, DeadLetter, Rules, Segment
from obs_assets.sources.formats import Text
from obs_assets.sources.formats.base import Record
from obs_assets.sources.json_text import cleaned
from obs_assets.sources.pieces import Piece, join, ranges_of, without
from obs_assets.sources.reading import Reading

_SCHEMA = pa.schema(
    {
        "file": pa.int32(),
        "file_offset": pa.int64(),
        "length": pa.int64(),
        "line": pa.string_view(),
    }
)


def read_text(
    data: bytes | bytearray, segments: list[Segment], row: Text, rules: Rules
) -> Reading:
    """Read a batch in a text format.

    Args:
        data: the bytes of all segments, in order.
        segments: the segments.
        row: the format.
        rules: limits of an event.
    """
    texts = _Texts(row, rules)
    begin = 0
    for segment in segments:
        texts.read(bytes(data[begin : begin + segment.length]), segment)
        begin += segment.length
    rows = [dict(zip(_SCHEMA.names, event, strict=True)) for event in texts.events]
    return Reading(
        lines=pa.Table.from_pylist(rows, _SCHEMA),
        dead=texts.dead,
        consumed=texts.consumed,
        settled=texts.settled,
        within_line=[False] * len(segments),
        within_object=[0] * len(segments),
        remarks=texts.remarks,
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
            self._letter(segment, data, 0, len(data), TOO_LONG)
            self._done(len(data), len(data))
            return
        records = list(self._row.records(data[:whole]))
        pieces = [_piece_of(record) for record in records]
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
        """Add the event of a record, or of the records that are its pieces."""
        first = records[0]
        if first.event is None:
            self._letter(segment, data, first.begin, first.end, f"not_{self._row.name}")
            return
        event = dict(first.event)
        if len(records) > 1:
            texts = [record.event[self._row.text] for record in records if record.event]
            event[self._row.text] = "".join(texts)
            event = without(event, self._row.marks_of_pieces)
        written = json.dumps(event, ensure_ascii=False)
        text, remarks = cleaned(written, self._rules.unfold, self._rules.max_nesting)
        if len(text) > self._rules.max_event_bytes:
            for record in records:
                self._letter(segment, data, record.begin, record.end, TOO_LONG)
            return
        self.remarks.update((*remarks, f"format_{self._row.name}"))
        offset = segment.offset + first.begin
        length = sum(record.end - record.begin for record in records)
        self.events.append((segment.file, offset, length, text))
        if len(records) > 1:
            self.byte_ranges[segment.file, offset] = ranges_of(records, segment.offset)

    def _letter(self, segment: Segment, data: bytes, begin: int, end: int, reason: str) -> None:
        """Add a dead letter. Neighbours with the same reason become a single dead letter."""
        raw = data[begin:end]
        begin += segment.offset
        last = self.dead[-1] if self.dead else None
        if last and last.reason == reason and _is_followed_by(last, segment.file, begin):
            begin, raw = last.file_offset, last.raw + raw
            self.dead.pop()
        self.dead.append(DeadLetter(segment.file, begin, len(raw), reason, raw))


def _piece_of(record: Record) -> Piece:
    """The piece of a record. A record that is no event waits for no other piece."""
    is_whole = record.is_whole or record.event is None
    return Piece(record.begin, record.end, record.stream, is_whole)


def _is_followed_by(letter: DeadLetter, file: int, begin: int) -> bool:
    """Whether the bytes of a dead letter end at an offset of a file."""
    return letter.file == file and letter.file_offset + letter.length == begin
