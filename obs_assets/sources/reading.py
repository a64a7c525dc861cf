"""Result of reading a batch of segments: events, dead letters, and how far each segment was read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from obs_assets.sources.careful import DeadLetter


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
