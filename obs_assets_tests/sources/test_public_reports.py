"""Files in the shape of public bug reports about other tools, each a whole story: written, landed, changed.

The values are invented; all times lie on 2031-05-05. The parts of these stories are tested in `test_reader`,
`test_files` and `test_corpus`.
"""

import gzip
import json
from collections import Counter
from typing import Any

import pytest

from obs_assets.sources.landing import BatchSizes
from obs_assets_tests.sources.corpus import (
    at,
    exported,
    gelf,
    journal,
    lines,
    nanos,
    otlp,
    subscription,
    trail,
)
from obs_assets_tests.sources.place import NOW, Place

pytestmark = pytest.mark.slow

RS = b"\x1e"


def times(place: Place, name: str) -> list[str]:
    """Time of day of each event of a file, in the order of the file."""
    rows = [row for row in place.audit().rows() if row["event_file"] == name]
    in_order = sorted(rows, key=lambda row: int(row["file_offset"]))
    return [
        row["event_time"].strftime("%H:%M:%S.%f").rstrip("0").rstrip(".") for row in in_order
    ]


def test_record_separators_before_lines_objects_and_relative_times(place: Place) -> None:
    """qlog and `journalctl -o json-seq`: no inner line is an event, and seconds since a start are no time of 1970."""
    printed = json.dumps({"time": at("09:01"), "l": [{"n": 1}, {"n": 2}]}, indent=1).encode()
    place.path("lines.jsonl").write_bytes(
        b"".join(RS + lines({"time": at("09:00")}) for _ in "ab")
    )
    place.path("printed.jsonl").write_bytes(RS + printed + b"\n" + RS + printed + b"\n")
    place.path("qlog.jsonl").write_bytes(
        RS
        + lines({"qlog_format": "JSON-SEQ"})
        + RS
        + lines({"time": 0.0})
        + RS
        + lines({"time": 7.25})
    )
    report = place.land()
    assert times(place, "lines.jsonl") == ["09:00:00"] * 2
    assert times(place, "printed.jsonl") == ["09:01:00"] * 2
    assert len(times(place, "qlog.jsonl")) == 1
    assert report.remarks == {"time_missing": 1}
    assert report.dead_letters == {"time_before_2000": 2}


def test_entries_of_the_journal_at_the_edge_of_an_hour(place: Place) -> None:
    """Microseconds decide the hour; a field that is null, a list of texts or a list of bytes keeps its event."""
    entries = [
        {"__REALTIME_TIMESTAMP": str(1935738000 * 10**6 - 1), "MESSAGE": [104, 105, 13]},
        {"__REALTIME_TIMESTAMP": str(1935738000 * 10**6), "MESSAGE": None},
        journal("09:00", "6", MESSAGE=["a", "b"]),
    ]
    place.path("a.jsonl").write_bytes(lines(*entries))
    report = place.land(time_path="__REALTIME_TIMESTAMP")
    assert report.hours == {"2031-05-05-08:00": 1, "2031-05-05-09:00": 2}
    assert place.dead() == []


def test_a_file_of_windows_powershell_that_is_converted_later(place: Place) -> None:
    """UTF-16 with a mark is read; appended to UTF-8 it costs itself; as UTF-8 its events do not land again."""
    content = [
        lines({"time": at(clock), "n": number}).decode()
        for number, clock in enumerate(["09:00", "09:01", "09:02"])
    ]
    place.path("redirected.jsonl").write_bytes("".join(content).encode("utf-16"))
    tail = "".join(content[:2]).encode("utf-16-le")
    place.path("appended.jsonl").write_bytes(lines({"time": at("10:00")}) + tail)
    report = place.land(seal_after_minutes=0)
    assert report.remarks == {"decoded_from_utf16": 3}
    assert report.dead_letters == {"utf16_in_utf8": 1}
    place.path("redirected.jsonl").write_bytes("".join(content).encode())
    place.land(seal_after_minutes=0)
    assert times(place, "redirected.jsonl") == ["09:00:00", "09:01:00", "09:02:00"]
    assert times(place, "appended.jsonl") == ["10:00:00"]


def test_one_envelope_packed_and_plain_counts_once(place: Place) -> None:
    """CloudTrail's file beside its unpacked copy: each record at its own time, once, with a warning."""
    content = lines({"Records": [trail("09:58", "Stop"), trail("10:01", "Start")]})
    place.path("trail.json.gz").write_bytes(gzip.compress(content))
    place.path("trail-copy.json").write_bytes(content)
    report = place.land()
    assert report.hours == {"2031-05-05-09:00": 1, "2031-05-05-10:00": 1}
    assert report.warnings == {"copy of another file": 1}


def test_members_of_gzip_without_a_suffix(place: Place) -> None:
    """CloudWatch through Firehose: objects without a line end, packed one by one, under a name that says nothing."""
    objects = [
        subscription(("09:01", "a"), ("09:02", "b")),
        subscription(("09:02", "health"), kind="CONTROL_MESSAGE"),
        subscription(("10:01", "c")),
    ]
    members = [gzip.compress(json.dumps(one).encode()) for one in objects]
    place.path("pay-1-2031-05-05").write_bytes(b"".join(members))
    report = place.land(include=("pay-*",))
    assert times(place, "pay-1-2031-05-05") == ["09:01:00", "09:02:00", "10:01:00"]
    assert report.remarks["cloudwatch_without_events"] == 1
    assert place.dead() == []


def test_log_records_without_line_ends_and_without_envelopes(place: Place) -> None:
    """OpenTelemetry's file exporter and flat records: the event's own time decides, never the time of observation."""
    objects = [exported(otlp("09:05"), otlp("10:00")), exported(otlp("09:06"))]
    place.path("exporter.jsonl").write_bytes(
        b"".join(json.dumps(one).encode() for one in objects)
    )
    flat = {"timeUnixNano": 1935738000007250721, "observedTimeUnixNano": "1935745200000000000"}
    place.path("flat.jsonl").write_bytes(lines(flat, otlp("09:07")))
    place.land(seal_after_minutes=0)
    assert times(place, "exporter.jsonl") == ["09:05:00", "10:00:00", "09:06:00"]
    assert times(place, "flat.jsonl") == ["09:00:00.00725", "09:07:00"]


def test_messages_of_gelf_that_end_with_nul_while_the_file_grows(place: Place) -> None:
    """Times as Java writes them; no dead letter for a separator; a message that is appended lands alone."""
    messages = [
        json.dumps(gelf("09:00", 3)).replace("1935738000.25", "1.93573800025E9"),
        json.dumps(gelf("09:01", 6)),
    ]
    content = "".join(message + "\0" for message in messages).encode()
    place.path("gelf.jsonl").write_bytes(content)
    place.land()
    place.path("gelf.jsonl").write_bytes(
        content + json.dumps(gelf("09:02", 4)).encode() + b"\0"
    )
    assert place.land().hours == {"2031-05-05-09:00": 1}
    assert times(place, "gelf.jsonl") == ["09:00:00.25", "09:01:00.25", "09:02:00.25"]
    assert place.dead() == []


def test_a_file_that_is_mapped_into_memory(place: Place) -> None:
    """Zeros at its end are overwritten and cut off at last: each event lands once."""
    content = [lines({"time": at("09:00"), "n": number}) for number in range(8)]
    for count, size in ((3, 4096), (6, 4096), (8, 0)):
        written = b"".join(content[:count])
        with place.path("mapped.jsonl").open("r+b" if count > 3 else "wb") as file:
            file.write(written + b"\0" * (size - len(written)))
            file.truncate()
        place.now = NOW
        place.land()
        assert Counter(json.loads(line)["n"] for line in place.audit().lines()) == Counter(
            range(count)
        )


def written_again(name: str, records: list[dict[str, Any]]) -> bytes:
    """A file of some format with these records."""
    match name:
        case "cloudtrail":
            return lines({"Records": records})
        case "otlp":
            return lines(exported(*(otlp("09:00", **record) for record in records)))
        case "printed":
            about = {"owner": "o", "tail": "fields behind the list"}
            return json.dumps({"next": "t", "entries": records, **about}, indent=2).encode()
        case "loki":
            values = [[nanos("09:00"), record["note"]] for record in records]
            return lines({"data": {"result": [{"stream": {"app": "pay"}, "values": values}]}})
    raise AssertionError(name)


@pytest.mark.parametrize("most", [16 << 20, 2048])
@pytest.mark.parametrize("name", ["cloudtrail", "otlp", "printed", "loki"])
def test_an_envelope_that_is_written_again_with_more_records(
    place: Place, name: str, most: int
) -> None:
    """Each record lands once: in place, behind a line that came before, moved, packed, and beside an old copy."""
    place.sizes = BatchSizes(largest=1)
    records = [{"time": at("09:00"), "note": f"{n} " + "x" * 300} for n in range(9)]
    before = lines({"time": at("08:00"), "note": "before"})
    for count in (2, 2, 3, 5):
        place.path("a.json").write_bytes(before + written_again(name, records[:count]))
        place.land(max_event_bytes=most)
        assert len(place.audit().lines()) == count + 1
    place.path("old.json").write_bytes(place.path("a.json").read_bytes())
    place.path("a.json").write_bytes(before + written_again(name, records[:7]))
    place.land(max_event_bytes=most)
    assert len(place.audit().lines()) == 8
    place.path("a.json").unlink()
    content = before + written_again(name, records) + lines({"time": at("10:00")})
    place.path("b.json.gz").write_bytes(gzip.compress(content))
    place.land(max_event_bytes=most, seal_after_minutes=0)
    assert len(place.audit().lines()) == 11
    ((receipts),) = [one for one in place.receipts().values() if len(one) > 1]
    assert receipts[-1].separator_bytes <= 8
    assert place.dead() == []


@pytest.mark.parametrize("change", ["\r\n", "mark", "both", "back"])
def test_a_file_that_is_written_again_in_another_form(place: Place, change: str) -> None:
    """Line ends of another system, a byte order mark, or both: known, in place or beside; its new events land."""
    content = [lines({"time": at("09:00"), "n": n, "note": "x" * 300}) for n in range(12)]
    if change == "back":
        content = [b"\xef\xbb\xbf", *(line.replace(b"\n", b"\r\n") for line in content)]
    name = "a.jsonl"
    place.path(name).write_bytes(b"".join(content[:6]))
    place.land()
    before = len(place.lines())

    def formed(data: bytes) -> bytes:
        if change == "back":
            return data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
        data = data if change == "mark" else data.replace(b"\n", b"\r\n")
        return data if change == "\r\n" else b"\xef\xbb\xbf" + data

    place.path("copy.jsonl").write_bytes(formed(b"".join(content[:6])))
    assert place.land().warnings == {"copy of another file": 1}
    for count in (6, 8, len(content)):
        place.path(name).write_bytes(formed(b"".join(content[:count])))
        place.now = NOW
        place.land()
        assert len(place.audit().lines()) == before + count - 6
    place.path(name).rename(place.path("moved.jsonl"))
    assert place.land().hours == {}
    assert place.dead() == []
