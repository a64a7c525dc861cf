"""Bytes into events: every byte is an event's, a dead letter's or a separator, however the bytes are cut."""

import json
import math
import re
import resource
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from obs_assets.events import MAX_NESTING
from obs_assets.sources import strict
from obs_assets.sources.careful import DeadLetter, Rules, Segment
from obs_assets.sources.reader import read_batch

MAX_BYTES = 1 << 16
BOM = b"\xef\xbb\xbf"
SEPARATORS = b" \t\r\n,[]\0\x02\x03\x04\x0b\x1a\x1c\x1d\x1e\x1f"

EVENT = b'{"kind":"door","n":1}'
OTHER = b'{"kind":"lamp","n":2}'


@dataclass
class Read:
    """What was read of some bytes.

    Attributes:
        events: offset of the first bracket, end, text.
        dead: the dead letters.
        rest: what waits for more bytes.
    """

    data: bytes
    events: list[tuple[int, int, str]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    position: int = 0
    remarks: Counter[str] = field(default_factory=Counter)

    @property
    def lines(self) -> list[str]:
        return [line for _, _, line in sorted(self.events)]

    @property
    def rest(self) -> bytes:
        return self.data[self.position :]

    @property
    def reasons(self) -> list[tuple[str, bytes]]:
        return [
            (letter.reason, letter.raw)
            for letter in sorted(self.dead, key=lambda letter: letter.file_offset)
        ]

    def kinds(self) -> list[str]:
        """For each byte read: ``event``, ``separator`` or the reason of its dead letter; fails on an overlap."""
        kinds = ["separator"] * self.position
        for begin, end, _ in self.events:
            assert set(kinds[begin:end]) == {"separator"}
            kinds[begin:end] = ["event"] * (end - begin)
        for letter in self.dead:
            end = letter.file_offset + letter.length
            assert set(kinds[letter.file_offset : end]) == {"separator"}
            assert self.data[letter.file_offset : end] == letter.raw
            kinds[letter.file_offset : end] = [letter.reason] * letter.length
        return kinds

    def check(self) -> "Read":
        """Every byte is in exactly one place, and every event is one JSON object on one line."""
        left = bytes(
            byte
            for byte, kind in zip(self.data, self.kinds(), strict=False)
            if kind == "separator"
        )
        assert not left.replace(BOM, b"").strip(SEPARATORS)
        for _, _, line in self.events:
            assert is_event(line)
            assert "\n" not in line
        return self


def read(
    connection: duckdb.DuckDBPyConnection,
    data: bytes,
    *,
    pieces: Iterator[int] | None = None,
    max_bytes: int = MAX_BYTES,
    sealed: bool = True,
    grows: bool = False,
    rules: Rules | None = None,
) -> Read:
    """Read ``data`` in pieces of the given sizes, as landing does: what is not consumed is offered again with more.

    grows: each piece is all that the file has at that time.
    """
    result, within_line, within_object, room = Read(data), False, 0, 0
    sizes = chain(pieces or (), repeat(len(data) + 1))
    while True:
        room += next(sizes)
        piece = data[result.position : result.position + room]
        at_end = result.position + len(piece) == len(data)
        segment = Segment(
            0,
            result.position,
            len(piece),
            at_end or grows,
            sealed and at_end,
            within_line,
            within_object,
        )
        reading = read_batch(connection, piece, [segment], rules or Rules(max_bytes))
        for _, offset, length, line, *_ in zip(
            *reading.lines.to_pydict().values(), strict=True
        ):
            # The native lane counts the separators around an event as the event's
            raw = data[offset : offset + length]
            begin = offset + raw.index(b"{")
            result.events.append((begin, offset + len(raw.rstrip(SEPARATORS)), line))
        result.dead += reading.dead
        result.position += reading.consumed[0]
        within_line, within_object = reading.within_line[0], reading.within_object[0]
        result.remarks.update(reading.remarks)
        room = room - reading.consumed[0]
        if at_end:
            break
    known_to_duckdb = (
        "SELECT count(*) FROM (SELECT unnest(?::VARCHAR[]) AS line) WHERE json_valid(line)"
    )
    assert connection.execute(known_to_duckdb, [result.lines]).fetchall() == [
        (len(result.events),)
    ]
    return result


def is_event(line: str) -> bool:
    """Whether a text is one event by the strictest reading: an object, finite numbers, whole characters."""

    def refuse(_: str) -> float:
        raise ValueError

    def finite(text: str) -> float:
        return float(text) if math.isfinite(float(text)) else refuse(text)

    try:
        value = json.loads(line, parse_constant=refuse, parse_float=finite, parse_int=finite)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


PRETTY = (
    b'{\n  "kind": "door",\n  "parts": [\n    {\n      "n": 1\n    },\n    {"n": 2}\n  ]\n}'
)
PRETTY_LINE = '{"kind":"door","parts":[{"n":1},{"n":2}]}'


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (EVENT, [EVENT.decode()]),
        (EVENT + b"\n" + OTHER + b"\n", [EVENT.decode(), OTHER.decode()]),
        (EVENT + b"\r\n" + OTHER + b"\r\n", [EVENT.decode(), OTHER.decode()]),
        (BOM + EVENT + b"\n" + OTHER, [EVENT.decode(), OTHER.decode()]),
        (
            b"\n\n  \n" + EVENT + b"\n\n\r\n" + OTHER + b"\n \n",
            [EVENT.decode(), OTHER.decode()],
        ),
        (b"  " + EVENT + b"  \n\t" + OTHER, [EVENT.decode(), OTHER.decode()]),
        (
            EVENT + OTHER + b" " + EVENT + b"\n" + EVENT,
            [EVENT.decode(), OTHER.decode(), EVENT.decode(), EVENT.decode()],
        ),
        (EVENT + OTHER + b" " + EVENT, [EVENT.decode(), OTHER.decode(), EVENT.decode()]),
        (b"[" + EVENT + b"," + OTHER + b"]", [EVENT.decode(), OTHER.decode()]),
        (b"[\n" + EVENT + b",\n" + OTHER + b"\n]\n", [EVENT.decode(), OTHER.decode()]),
        (b"[\n  " + EVENT + b"\n  ," + OTHER + b"\n]", [EVENT.decode(), OTHER.decode()]),
        (b"[[" + EVENT + b"]," + OTHER + b"]\n[]", [EVENT.decode(), OTHER.decode()]),
        (PRETTY, [PRETTY_LINE]),
        (
            EVENT + b"\n" + PRETTY + b"\n" + OTHER + b"\n",
            [EVENT.decode(), PRETTY_LINE, OTHER.decode()],
        ),
        (PRETTY.replace(b"\n", b"\r\n") + b"\r\n" + OTHER, [PRETTY_LINE, OTHER.decode()]),
        (b"[\n" + PRETTY + b",\n" + PRETTY + b"\n]", [PRETTY_LINE, PRETTY_LINE]),
        (PRETTY + EVENT + PRETTY, [PRETTY_LINE, EVENT.decode(), PRETTY_LINE]),
        (b"", []),
        (b"\n \r\n[],\n", []),
    ],
)
def test_events_in_any_layout(
    connection: duckdb.DuckDBPyConnection, data: bytes, lines: list[str]
) -> None:
    """One-line, pretty-printed, concatenated and listed objects are events; what lies between them is a separator."""
    result = read(connection, data).check()
    assert (result.lines, result.reasons, result.rest) == (lines, [], b"")


@pytest.mark.parametrize(
    ("damage", "reasons"),
    [
        (b"no json at all", ["not_json"]),
        (b'"text"', ["not_an_object"]),
        (b"42", ["not_an_object"]),
        (b"null", ["not_an_object"]),
        (b"}", ["not_json"]),
        (b'{"a":1,}', ["not_json"]),
        (b'{"a":[1,]}', ["not_json"]),
        (b"{'a':1}", ["not_json"]),
        (b'{"a" 1}', ["not_json"]),
        (b'{"a":01}', ["not_json"]),
        (b'{"a":+1}', ["not_json"]),
        (b'{"a":.5}', ["not_json"]),
        (b'{"a":"tab\there"}', ["not_json"]),
        (b'{"a":"nul\0here"}', ["not_json"]),
        (b'{"a":"\\x41"}', ["not_json"]),
        (b'{"a":"\\u12G4"}', ["not_json"]),
        (b'{"a":1 /* why */}', ["not_json"]),
        (b'{"a":True}', ["not_json"]),
        (b'{"a":"torn', ["not_json"]),
        (b'{"a":', ["not_json"]),
        (b'{"a":[1,2', ["not_json"]),
        (b'{"a":tru', ["not_json"]),
        (b'{"a":NaN}', ["number_not_finite"]),
        (b'{"a":nan}', ["not_json"]),
        (b'{"a":[Infinity]}', ["number_not_finite"]),
        (b'{"a":-Infinity}', ["number_not_finite"]),
        (b'{"a":inf}', ["not_json"]),
        (b'{"a":1e400}', ["number_not_finite"]),
        (b'{"a":1e-20000}', ["number_not_finite"]),
        (b'{"a":-1E+400 }', ["number_not_finite"]),
        (b'{"a":1' + b"0" * 309 + b"}", ["number_not_finite"]),
        (b'{"a":' + b"9" * 5000 + b"}", ["number_not_finite"]),
        (b'{"a":1' + b"0" * 250 + b"e99}", ["number_not_finite"]),
        (b'{"a":"\xff"}', ["invalid_utf8"]),
        (b'{"a":"\xed\xa0\x80"}', ["invalid_utf8"]),
        (b'{"\xc3":1}', ["invalid_utf8"]),
        (b"\xff\xfe{", ["not_json"]),
        (b"\xff\xfe" + OTHER.decode().encode("utf-16-le"), ["utf16_in_utf8"]),
        ((OTHER.decode() + "\r\n").encode("utf-16-le") * 3, ["utf16_in_utf8"]),
        (b'{"a":' * (MAX_NESTING + 1) + b"1" + b"}" * (MAX_NESTING + 1), ["too_deep"]),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", ["too_deep"]),
        (b'{"a":' * 100_000, ["too_deep"]),
        (b'{"a":"' + b"x" * MAX_BYTES + b'"}', ["too_long"]),
        (b'{"a":"' + b"x" * MAX_BYTES, ["too_long"]),
        # printed over many lines: nothing of it may pass for an event
        (PRETTY.replace(b"},", b"},,"), ["not_json"]),
        (PRETTY.replace(b'{"n": 2}', b'{"n": 2},'), ["not_json"]),
        (PRETTY.replace(b'"n": 1', b'"n": NaN'), ["number_not_finite"]),
        (PRETTY.replace(b"door", b"d\xffr"), ["invalid_utf8"]),
        (PRETTY.replace(b'{"n": 2}', b"[" * 1000 + b"]" * 1000), ["too_deep"]),
        (PRETTY.replace(b'{"n": 2}', b'"' + b"x" * MAX_BYTES + b'"'), ["too_long"]),
        (PRETTY.removesuffix(b"\n  ]\n}"), ["not_json"]),
        (b'{\n  "a": [\n    {"n": 1},\n    {"n": 2},', ["not_json"]),
    ],
)
def test_damage_costs_its_own_bytes(
    connection: duckdb.DuckDBPyConnection, damage: bytes, reasons: list[str]
) -> None:
    """A damaged stretch is a dead letter with its reason; the events around it survive, and none is made up."""
    result = read(
        connection, EVENT + b"\n" + damage + b"\n" + OTHER + b"\n" + EVENT, max_bytes=MAX_BYTES
    ).check()
    assert result.lines == [EVENT.decode(), OTHER.decode(), EVENT.decode()]
    assert [reason for reason, _ in result.reasons] == reasons


def test_damage_is_kept_with_its_bytes_and_offset(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """A dead letter holds its file's bytes from its offset on; neighbours with the same reason are one letter."""
    result = read(connection, EVENT + b"\nfirst\nsecond\n" + OTHER + b'\n{"a":NaN}\n').check()
    assert result.reasons == [
        ("not_json", b"first\nsecond\n"),
        ("number_not_finite", b'{"a":NaN}'),
    ]
    assert [letter.file_offset for letter in result.dead] == [22, 57]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (b'{"a": "\\ud800"}', '{"a": "\\ufffd"}'),
        (b'{"a": "\\ud83d\\u0041"}', '{"a": "\\ufffd\\u0041"}'),
        (b'{"\\uDBFF": 1}', '{"\\ufffd": 1}'),
        (
            b'{"a": "\\ud83d\\ude00 \\\\ud800 \\\\\\ud800"}',
            '{"a": "\\ud83d\\ude00 \\\\ud800 \\\\\\ufffd"}',
        ),
        (b'{"a": 12345678901234567890123, "b": 0.100000000000000000001}',) * 2,
        (b'{"a": 1.50, "b": 1E5, "c": -0, "d": 1e-400}',) * 2,
        (b'{"a": 1, "b": 1.50, "a": "\\u00e9"}', '{"a":"é","b":1.50}'),
        (b'{"a": 1, "\\u0061": 12345678901234567890123}', '{"a":12345678901234567890123}'),
        (
            b'{"a": {"b": [{"c": 1E5, "c": [null, true, 1.0]}]}}',
            '{"a":{"b":[{"c":[null,true,1.0]}]}}',
        ),
        (b'{"\\ud800": 1, "\\udbff": 2}', '{"\ufffd":2}'),
        (b'{"a": "x\\u0000y \\\\u0000"}', '{"a": "x\\ufffdy \\\\u0000"}'),
        ('{"a": "naïve 😀 nan, inf] 1e999}"}'.encode(),) * 2,
        (b'{"a": "info,}", "nan" : [ "inf" ] }',) * 2,
        (b'{\n "a" : "two  \\n spaces" ,\r\n "b":\t1.50 }', '{"a":"two  \\n spaces","b":1.50}'),
    ],
)
def test_text_and_numbers_stay_as_written(
    connection: duckdb.DuckDBPyConnection, source: bytes, line: str | bytes
) -> None:
    """Digits and escapes stay; of equal keys the last wins; half a surrogate pair and NUL become U+FFFD."""
    expected = line if isinstance(line, str) else line.decode()
    assert read(connection, source).check().lines == [expected]
    # the same in the careful lane, which a neighbour on its line asks for
    in_careful_lane = read(connection, source + OTHER).check().lines[0]
    assert in_careful_lane == expected


@pytest.mark.parametrize(
    ("source", "remarks"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', {"duplicate_keys": 1}),
        (b'{"a": [{"b": 1}, {"b": 2}], "b": {"a": 1}}', {}),
        (b'{"a": "\\ud800\\u0000"}', {"lone_surrogate": 1, "nul_character": 1}),
        (b'{"a": "\\\\u0000 \\ud83d\\ude00"}', {}),
    ],
)
def test_changes_of_text_are_counted(
    connection: duckdb.DuckDBPyConnection, source: bytes, remarks: dict[str, int]
) -> None:
    """What is changed in an event is counted, and nothing else; both lanes agree."""
    assert read(connection, source).check().remarks == remarks
    assert read(connection, source + OTHER).check().remarks == remarks


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (b'{"data":"{\\"n\\": 1.50, \\"n\\": 1E5}"}', '{"data":{"n":1E5}}'),
        (b'{"x":{"data" : " [1, \\"\\\\u0000\\"]"}}', '{"x":{"data" : [1, "\\ufffd"]}}'),
        (b'{"data":"{\\"n\\":NaN}"}',) * 2,
        (b'{"data":"[1, 2] and so on"}',) * 2,
        (b'{"other":"{\\"n\\":1}","text":"\\"data\\":\\"{}\\""}',) * 2,
    ],
)
def test_documents_in_strings_are_unfolded_on_request(
    connection: duckdb.DuckDBPyConnection, source: bytes, line: str | bytes
) -> None:
    """The document takes its string's place, by the rules for events; whatever is no document stays a string."""
    expected = line if isinstance(line, str) else line.decode()
    result = read(connection, source, rules=Rules(MAX_BYTES, unfold=("data",))).check()
    assert result.lines == [expected]
    assert result.remarks["unfolded"] == (expected != source.decode())
    assert read(connection, source).lines == [source.decode()]


@pytest.mark.parametrize("lead", [b"", b"[\n  "])
@pytest.mark.parametrize("cut", range(1100, 1160, 7))
def test_inner_lines_of_an_object_that_is_too_long_are_no_events(
    connection: duckdb.DuckDBPyConnection, lead: bytes, cut: int
) -> None:
    """Although its end lies in a later piece, nothing of it is an event; what follows it is."""
    indent = lead.rpartition(b"\n")[2]
    inner = b",\n".join([indent + b'  {"n": 1}'] * 500)
    data = (
        lead + b"{\n" + indent + b'"a": [\n' + inner + b"\n" + indent + b"  ]\n" + indent + b"}"
    )
    data += b",\n  " + OTHER + b"\n]\n" if lead else b"\n" + OTHER + b"\n"
    result = read(connection, data, pieces=repeat(cut), max_bytes=1024).check()
    assert result.lines == [OTHER.decode()]
    assert {reason for reason, _ in result.reasons} == {"too_long"}


@pytest.mark.parametrize("depth", [MAX_NESTING - 1, MAX_NESTING])
@pytest.mark.parametrize("end", [b"\n", OTHER + b"\n"])
def test_nesting_up_to_the_limit_is_read(
    connection: duckdb.DuckDBPyConnection, depth: int, end: bytes
) -> None:
    """Both lanes take the same depth."""
    deep = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    assert (deep.decode() in read(connection, deep + end).check().lines) == (
        depth < MAX_NESTING
    )


def test_many_brackets_are_not_deep(connection: duckdb.DuckDBPyConnection) -> None:
    """An event with many small objects side by side is read."""
    wide = b'{"a":[' + b",".join([b'{"b":[1]}'] * 1000) + b"]}"
    assert read(connection, wide).check().lines == [wide.decode()]


@pytest.mark.parametrize(
    "tail",
    [
        b"{",
        b'{"a"',
        b'{"a":"half',
        b'{"a":"half\\',
        b'{"a":"\\u12',
        b'{"a":tr',
        b'{"a":-',
        b'{"a":1.',
        b'{"a":1e',
        b'{"a":12',
        b'{"a":1,',
        b'{"a":-Infin',
        '{"a":"é'.encode()[:-1],
        b'{"a":1}\n'[:-2],
        b'{\n  "a": 1',
        b'{\n  "a": [\n    {"b": 1},\n',
        b"garb",
        b"{a",
        b"\xef\xbb",
    ],
)
def test_torn_end_waits_then_dies(connection: duckdb.DuckDBPyConnection, tail: bytes) -> None:
    """An unfinished end is left for the next time, and given up as one dead letter once the file is sealed."""
    data = EVENT + b"\n" + tail
    waiting = read(connection, data, sealed=False).check()
    assert (waiting.lines, waiting.dead, waiting.rest) == ([EVENT.decode()], [], tail)
    sealed = read(connection, data, sealed=True).check()
    assert (sealed.lines, sealed.rest) == ([EVENT.decode()], b"")
    assert [raw for _, raw in sealed.reasons] == [tail]


@pytest.mark.slow
def test_torn_event_is_whole_once_completed(connection: duckdb.DuckDBPyConnection) -> None:
    """Wherever a write was interrupted, the completed event is landed once and unchanged."""
    data = EVENT + b"\n" + PRETTY + b"\n"
    for cut in range(1, len(data), 3):
        result = read(connection, data, pieces=iter([cut]), grows=True).check()
        assert (result.lines, result.dead) == ([EVENT.decode(), PRETTY_LINE], []), cut


def test_event_after_a_torn_one_survives_the_seal(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """A line that begins an object outlives the unfinished object before it."""
    result = read(connection, b'{"a":\n' + EVENT + b"\n").check()
    assert (result.lines, result.reasons) == ([EVENT.decode()], [("unfinished", b'{"a":\n')])


@pytest.mark.parametrize(
    "between",
    [
        *(b"\0", b"\0\0\n", b"\0" * 5000, b"\x1e", b"\n\x1e", BOM, b"\n" + BOM, BOM + b"\n"),
        *(b"\x03\x02", b"\x03\n\x02", b"\x1c\r\x0b", b"\x04", b"\x1f", b"\n\x1a"),
    ],
)
def test_what_json_allows_nowhere_separates_events(
    connection: duckdb.DuckDBPyConnection, between: bytes
) -> None:
    """Characters that frame messages (GELF, RFC 7464, MLLP), a hole and a second BOM cost no event."""
    for events in ([EVENT, OTHER, EVENT], [PRETTY, EVENT, PRETTY]):
        data = between + between.join(events) + between
        for cuts in (None, repeat(17 if len(between) < 9 else 997)):
            result = read(connection, data, pieces=cuts).check()
            lines = [PRETTY_LINE if event == PRETTY else event.decode() for event in events]
            assert (result.lines, result.reasons, result.rest) == (lines, [], b"")


@pytest.mark.parametrize(
    "text",
    [
        b"x",
        b"INFO: ",
        b"data: ",
        b"\x0c",
        "\u200b".encode(),
        b'"a": ',
        b"2031-05-06 07:08:09 [main] ",
        b"it's \"",
    ],
)
@pytest.mark.parametrize("indent", [0, 1])
def test_text_before_an_object_costs_the_whole_object(
    connection: duckdb.DuckDBPyConnection, text: bytes, indent: int
) -> None:
    """Nothing within an object over many lines is an event of its own because a text stands before the object."""
    whole = json.dumps({"i": [{"n": 1}, {"n": {}}], "j": {"k": [{}]}}, indent=indent).encode()
    for damage in (whole, whole.replace(b"}\n]", b"},\n]") if indent else whole):
        result = read(connection, EVENT + b"\n" + text + damage + b"\n" + OTHER + b"\n").check()
        assert result.lines == [EVENT.decode(), OTHER.decode()]
        assert {reason for reason, _ in result.reasons} == {"not_json"}


@pytest.mark.parametrize(
    "text", [b"x {", b"x [", b"x {[", b"} {", b'"{', b"server {\n  listen 80;"]
)
def test_text_with_open_brackets_costs_no_event(
    connection: duckdb.DuckDBPyConnection, text: bytes
) -> None:
    """A text that is no object, with a bracket that never closes, ends before the next line that begins an object."""
    result = read(connection, text + b"\n" + EVENT + b"\n" + OTHER + b"\n}\n").check()
    assert result.lines == [EVENT.decode(), OTHER.decode()]


def test_utf16_behind_utf8_is_one_letter_that_says_so(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """`>>` of Windows PowerShell: the lines in UTF-16 cost themselves, what is UTF-8 before and after them lands."""
    tail = "".join(f'{{"note":"Grüße 端 {n}"}}\r\n' for n in range(9)).encode("utf-16-le")
    for data in (
        EVENT + b"\n" + tail,
        EVENT + b"\n" + tail + b"\n" + OTHER,
        b"\xff\xfe" + tail + b"\n" + OTHER,
    ):
        for cuts in (None, repeat(101)):
            result = read(connection, data, pieces=cuts).check()
            assert len(result.lines) == (EVENT in data) + (OTHER in data)
            assert {reason for reason, _ in result.reasons} == {"utf16_in_utf8"}
        assert len(read(connection, data).dead) == 1


@pytest.mark.parametrize(
    "behind", [b"", b"\n", b"\n\n\n", b"]", b"\0" * 5000, b"\r\n \x1e", b"\n" + BOM]
)
def test_separators_at_the_end_settle_nothing(
    connection: duckdb.DuckDBPyConnection, behind: bytes
) -> None:
    """What identifies a file ends with its last event or dead letter: separators behind it may be overwritten."""
    for last, reason in (
        (EVENT, None),
        (EVENT + OTHER, None),
        (PRETTY, None),
        (b"text\n", "not_json"),
    ):
        data = OTHER + b"\n" + last + behind
        reading = read_batch(
            connection, data, [Segment(0, 0, len(data), sealed=True)], Rules(MAX_BYTES)
        )
        assert [letter.reason for letter in reading.dead] == ([reason] if reason else [])
        assert reading.settled == [len(OTHER) + 1 + len(last)]


@pytest.mark.slow
def test_rest_of_a_line_that_is_too_long_is_dead(connection: duckdb.DuckDBPyConnection) -> None:
    """What follows in later pieces of a line that was given up is never taken for an event."""
    line = b'{"a":[' + b",".join([b'{"b":1}'] * 1000) + b"]}"
    for cut in range(1500, 1540, 4):
        result = read(
            connection, line + b"\n" + EVENT, pieces=iter([cut] * 10), max_bytes=1024
        ).check()
        assert result.lines == [EVENT.decode()], cut
        assert {reason for reason, _ in result.reasons} == {"too_long"}


def test_rest_of_a_long_line_may_look_like_an_event(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Where a line began decides, not what is left of it."""
    data = b'{"b":1}\n' + EVENT + b"\n"
    reading = read_batch(
        connection, data, [Segment(0, 5000, len(data), within_line=True)], Rules(MAX_BYTES)
    )
    assert reading.lines["line"].to_pylist() == [EVENT.decode()]
    assert reading.dead == [DeadLetter(0, 5000, 8, "too_long", b'{"b":1}\n')]


def test_windows_of_the_careful_lane_cut_nothing(connection: duckdb.DuckDBPyConnection) -> None:
    """Words, numbers, escapes and characters are whole wherever they lie in an event of several kilobytes."""
    tail = ',"a":true,"b":false,"c":null,"d":-12.5e+10,"e":"\\u00e9 é 😀 \\\\"}'
    sources = [f'{{"pad":"{"x" * size}"{tail}' for size in range(1960, 2060)]
    result = read(
        connection,
        "\n".join(source + OTHER.decode() for source in sources).encode(),
        max_bytes=1 << 20,
    )
    assert result.check().lines == [
        line for source in sources for line in (source, OTHER.decode())
    ]


def test_damage_on_a_shared_line_costs_no_neighbour(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Where the brackets of a damaged object close, the next one is read: on its line, or in a list over many lines."""
    result = read(
        connection, b'{"a":1,}' + EVENT + b"\n[\n  {\n    'a': 1\n  },\n  " + PRETTY + b"\n]\n"
    ).check()
    assert (result.lines, len(result.dead)) == ([EVENT.decode(), PRETTY_LINE], 2)


def test_indentation_tells_where_a_long_object_ends(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """An object over many lines that is too long costs itself; one without indentation leaves what is in it."""
    inner = [{"n": number, "pad": "x" * 40} for number in range(60)]
    for indent, lines in (
        (2, []),
        (0, [json.dumps(one, separators=(",", ":")) for one in inner]),
    ):
        data = (
            json.dumps({"items": inner, "end": 1}, indent=indent).encode()
            + b"\n"
            + EVENT
            + b"\n"
        )
        result = read(connection, data, pieces=repeat(1500), max_bytes=1024).check()
        assert result.lines == [*lines, EVENT.decode()], indent
        assert result.reasons[0][0] == "too_long"


@pytest.mark.slow
def test_long_list_on_one_line_streams_through(connection: duckdb.DuckDBPyConnection) -> None:
    """A top-level array on a single line, longer than any event may be, is read piece by piece."""
    events = [b'{"n":%d}' % n for n in range(2000)]
    for cut in range(2000, 2012, 2):
        result = read(
            connection, b"[" + b",".join(events) + b"]", pieces=repeat(cut), max_bytes=1024
        ).check()
        assert result.lines == [event.decode() for event in events], cut
        assert not result.dead


def test_segments_of_many_files_do_not_mix(connection: duckdb.DuckDBPyConnection) -> None:
    """Files read together are read as if each were alone, unfinished ends, marks at the beginning and all."""
    contents = [
        EVENT + b"\n",
        b"",
        b'{"a":',
        BOM + OTHER,
        b"[" + EVENT,
        b"",
        b"], garb",
        b'{"b":1}',
        b'1}\n{"c":1}\n',
    ]
    contents += [
        b'{"a":"\xc3',
        b'{"caf\xe9":1}\n' + EVENT,
    ]  # a letter that is half written, one of another encoding
    segments = [
        Segment(number, 100 * number * (number > 3), len(data))
        for number, data in enumerate(contents)
    ]
    together = read_batch(connection, b"".join(contents), segments, Rules(MAX_BYTES))
    alone = [
        read_batch(connection, data, [segment], Rules(MAX_BYTES))
        for data, segment in zip(contents, segments, strict=True)
    ]
    rows = sorted(zip(*together.lines.to_pydict().values(), strict=True))
    assert rows == [
        row for one in alone for row in zip(*one.lines.to_pydict().values(), strict=True)
    ]
    assert together.dead == [letter for one in alone for letter in one.dead]
    assert together.consumed == [one.consumed[0] for one in alone]


# Properties

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=6), json_values, max_size=4)


@st.composite
def one_line_events(draw: st.DrawFn) -> bytes:
    """An event as programs write it."""
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    return json.dumps(
        draw(objects), ensure_ascii=draw(st.booleans()), separators=separators
    ).encode()


@st.composite
def pretty_events(draw: st.DrawFn) -> bytes:
    """An event printed over many lines."""
    return json.dumps(draw(objects), indent=draw(st.sampled_from([0, 1, 2, "\t"]))).encode()


@st.composite
def damaged_events(draw: st.DrawFn) -> bytes:
    """An event that was cut, or in which a few bytes were replaced."""
    event = draw(one_line_events() | pretty_events())
    at = draw(st.integers(0, len(event)))
    tricky = st.sampled_from(
        [
            b"",
            b",",
            b"}",
            b"{",
            b'"',
            b"[",
            b"]",
            b"\\",
            b"\n",
            b"\0",
            b"NaN",
            b"1e999",
            b"\xff",
            b":",
        ]
    )
    skip = draw(st.sampled_from([0, 0, 1, 2, len(event)]))
    return event[:at] + draw(tricky | st.binary(max_size=4)) + event[at + skip :]


tokens = st.sampled_from(
    [
        *(bytes([byte]) for byte in b'{}[],:"\\ \n\r\t0-.eE+a'),
        b"NaN",
        b"Infinity",
        b"null",
        b"true",
        b'"a":',
        b"\\u",
        BOM,
        b"\0",
    ]
)
pieces_of_files = st.one_of(
    one_line_events(),
    pretty_events(),
    damaged_events(),
    st.binary(max_size=12),
    st.lists(tokens, max_size=12).map(b"".join),
)
files = st.lists(
    st.tuples(pieces_of_files, st.sampled_from([b"\n", b"\n", b"\r\n", b"", b",", b" "])),
    max_size=8,
).map(lambda parts: b"".join(chain.from_iterable(parts)))
many = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.slow
@many
@given(data=files, sealed=st.booleans())
@example(data=BOM, sealed=True)
@example(data=b'{"a":1}\x1f\n', sealed=True)
@example(
    data=b'{}{"":null,"0\\u001f\\u001f\xc2\x80":null,"000\\u001f\\\\\xc2\x80":null}\n',
    sealed=False,
)
def test_every_byte_is_in_one_place(
    connection: duckdb.DuckDBPyConnection, data: bytes, sealed: bool
) -> None:
    """Whatever a file holds, each byte is in one event, in one dead letter, a separator, or waits at the end."""
    result = read(connection, data, sealed=sealed).check()
    assert not (sealed and result.rest)


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.text('naNiIfFtyYeE+-0123 \t\r,}]":', max_size=60), st.text("0123", max_size=250))
@example("-inf", "")
@example("Infinity     ", "")
@example("1e+", "0" * 30)
@example("1,\t", "")
def test_whatever_duckdb_alone_would_take_is_looked_at_again(value: str, digits: str) -> None:
    """Wherever the expression matches that tells strict JSON, a place in the line was found first."""
    data = f'{{"a":{value}{digits}}}\n'.encode()
    bounds = np.array([0, len(data)])
    places = strict.doubtful_places(data, np.frombuffer(data, np.uint8), bounds, MAX_NESTING)
    assert len(places) or not re.search(strict._SUSPICIOUS, data[:-1].decode())


@pytest.mark.slow
@many
@given(data=files, limit=st.integers(8, 64), cut=st.integers(24, 96))
@example(
    data=b'{\n\0 "": [\n -1,\n "a",\n "b"\n ],\n "c": 0\n}\n{}\n', limit=8, cut=36
)  # {} right after what was given up
def test_small_limits_lose_no_byte(
    connection: duckdb.DuckDBPyConnection, data: bytes, limit: int, cut: int
) -> None:
    """Events longer than the limit, wherever the file is cut, are dead letters and nothing worse."""
    result = read(connection, data, pieces=repeat(cut), max_bytes=limit).check()
    assert all(len(line.encode()) <= limit for line in result.lines)
    assert not result.rest


@pytest.mark.slow
@many
@given(data=files, cuts=st.lists(st.integers(1, 60), max_size=8), grows=st.booleans())
@example(data=b'{"":\n\n{}', cuts=[5], grows=True)
@example(data=b'{\n"\\}u001f": null\n}\n', cuts=[5], grows=False)
def test_cutting_the_bytes_changes_nothing(
    connection: duckdb.DuckDBPyConnection, data: bytes, cuts: list[int], grows: bool
) -> None:
    """Read at once, in pieces, or as the file grows: the same events and the same dead bytes for the same reasons."""
    whole = read(connection, data).check()
    cut = read(connection, data, pieces=iter(cuts), grows=grows).check()
    assert sorted(cut.events) == sorted(whole.events)
    assert cut.kinds() == whole.kinds()


@pytest.mark.slow
@many
@given(
    parts=st.lists(
        one_line_events().map(lambda event: (event, True))
        | pieces_of_files.map(lambda part: (part, False)),
        max_size=10,
    )
)
def test_events_on_their_own_lines_survive(
    connection: duckdb.DuckDBPyConnection, parts: list[tuple[bytes, bool]]
) -> None:
    """No damage reaches over a line that holds an event; only an object around it can take it in."""
    result = read(connection, b"".join(part + b"\n" for part, _ in parts)).check()
    kinds, position = result.kinds(), 0
    own_reasons = {
        "number_not_finite",
        "invalid_utf8",
        "too_deep",
    }  # of objects that are whole, lines within and all
    for part, is_whole in parts:
        if is_whole:
            assert set(kinds[position : position + len(part)]) <= {"event", *own_reasons}
        position += len(part) + 1


@pytest.mark.slow
@many
@given(
    data=damaged_events()
    | st.lists(tokens, max_size=16).map(lambda parts: b'{"a":' + b"".join(parts) + b"}")
)
def test_both_lanes_agree(connection: duckdb.DuckDBPyConnection, data: bytes) -> None:
    """What DuckDB's parser lets through is what strict JSON lets through: a neighbour changes no verdict."""
    line = data.replace(b"\n", b" ")
    alone, beside = (
        read(connection, line).check(),
        read(connection, line + b" " + OTHER).check(),
    )
    assert (line.decode(errors="replace").strip() in alone.lines) <= is_event(
        line.decode(errors="replace")
    )
    if alone.lines and not alone.dead:
        assert beside.lines == [*alone.lines, OTHER.decode()]


# Size


@pytest.mark.slow
def test_garbage_costs_linear_time(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """A log that is no JSON at all, in one batch, takes seconds and not hours."""
    line = b"2031-05-06 07:08:09 plain text of a hundred bytes" + b"." * 50 + b"\n"
    data = line * 100_000
    (letter,) = read_batch(connection, data, [Segment(0, 0, len(data))], Rules(16 << 20)).dead
    assert letter.raw == data


@pytest.mark.slow
def test_long_strings_need_bounded_memory(connection: duckdb.DuckDBPyConnection) -> None:
    """A pretty-printed event with a string of 15 MB is an event, and costs a few times its size."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = b'{\n  "a": "' + b"x\\n" * (5 << 20) + b'"\n}\n' + EVENT
    segments = [Segment(0, 0, len(data), sealed=True)]
    lines = read_batch(connection, data, segments, Rules(16 << 20)).lines["line"].to_pylist()
    assert [len(line) for line in lines] == [len(EVENT), len(data) - len(EVENT) - 6] or len(
        lines
    ) == 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
