"""syslog: RFC 5424 (``<34>1 2026-11-25T09:00:00Z host app - ID47 - text``), and rsyslog's files with ISO times.

A message ends with a newline or a NUL. TCP carries messages behind their length instead (RFC 6587, octet counting):
``57 <34>1 …``. Such a message ends after that many bytes, also without a newline and with newlines in it.

The older form of RFC 3164 has no year in its time: such a line is not an event.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from obs_assets.sources.formats.base import Event, Record, Text, lines_of

_HEADER = (
    r"(?:\d{1,7} )?<(?P<pri>\d{1,3})>1 (?P<timestamp>\S+) (?P<hostname>\S+) (?P<appname>\S+) "
    r"(?P<procid>\S+) (?P<msgid>\S+) "
)
_RFC5424 = re.compile(
    _HEADER + r'(?P<data>-|(?:\[(?:[^\]"]|"(?:[^"\\]|\\.)*")*\])+)(?: (?P<message>.*))?',
    re.DOTALL,
)
_RSYSLOG = re.compile(
    r"(?:<(?P<pri>\d{1,3})>)?(?P<timestamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*) (?P<hostname>\S+) "
    r"(?P<appname>[^\s:\[]+)(?:\[(?P<procid>[^\]]*)\])?: ?(?P<message>.*)",
    re.DOTALL,
)
_ELEMENT = re.compile(r'\[([^ \]"=]+)((?: [^ \]"=]+="(?:[^"\\]|\\.)*")*)\]')
_PARAMETER = re.compile(r' ([^ \]"=]+)="((?:[^"\\]|\\.)*)"')
_SEVERITIES = 8
"""Number of severities: the priority is 8 × facility + severity."""
_HIGHEST = 191
"""Highest valid priority: facility 23, severity 7."""


def _event(line: str) -> Event | None:
    match = _RFC5424.fullmatch(line) or _RSYSLOG.fullmatch(line)
    if match is None:
        return None
    found = match.groupdict()
    priority, data = found.pop("pri"), found.pop("data", None)
    event = {name: value for name, value in found.items() if value not in (None, "-")}
    if "message" in event:
        event["message"] = event["message"].removeprefix("\ufeff")
    if priority is not None:
        if int(priority) > _HIGHEST:
            return None
        event["severity"] = int(priority) % _SEVERITIES
        event["facility"] = int(priority) // _SEVERITIES
    if data and data != "-":
        event["structured_data"] = {
            name: _parameters(text) for name, text in _ELEMENT.findall(data)
        }
    return event


def _parameters(text: str) -> dict[str, str]:
    return {
        name: re.sub(r'\\(["\\\]])', r"\1", value) for name, value in _PARAMETER.findall(text)
    }


_COUNT = re.compile(rb"([1-9]\d{0,6}) (?=<\d{1,3}>)")
"""The length of a message, in bytes, before the message."""

_COUNT_BEGINS = re.compile(rb"[1-9]\d{0,6}(?: (?:<\d{0,3})?)?")
"""A length that is cut by the end of the text."""

_BEGIN = re.compile(
    rb"(?:[1-9]\d{0,6} )?<\d{1,3}>|\d{4}-\d\d-\d\dT|[A-Z][a-z]{2} [ \d]\d \d\d:"
)
"""The beginning of a message."""

_NEXT_LINE = re.compile(rb"[\n\0](?:" + _BEGIN.pattern + rb")")

_LINE_ENDS = b"\r\n\0"


def _counted_end(data: bytes, begin: int) -> int | None:
    """Position after the counted message that begins here, also beyond the text; None if there is none.

    If the count is right, the text, a line end or the next counted message is behind the message.
    """
    match = _COUNT.match(data, begin)
    if match is None:
        return None
    end = match.end() + int(match[1])
    if end > len(data):
        # A message that is not complete yet; a count before a line is wrong.
        is_right = _NEXT_LINE.search(data, begin) is None
    else:
        is_last = end == len(data) or bool(_COUNT_BEGINS.fullmatch(data, end))
        is_right = is_last or data[end] in _LINE_ENDS or bool(_COUNT.match(data, end))
    return end if is_right else None


def _next_counted(data: bytes, begin: int, end: int) -> int:
    """Position of the first counted message in a range; its end without one."""
    for match in _COUNT.finditer(data, begin, end):
        if _counted_end(data, match.start()) is not None:
            return match.start()
    return end


def _spans(data: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of each complete message."""
    begin = 0
    while begin < len(data):
        end = _counted_end(data, begin)
        if end is None:
            line = data.find(b"\n", begin) + 1
            end = data.find(b"\0", begin, line or len(data)) + 1 or line
            if not _BEGIN.match(data, begin):
                # A message that is cut in front costs the rest of it, not the message after it.
                limit = end or len(data)
                found = _next_counted(data, begin + 1, limit)
                end = found if found < limit else end
        if not end or end > len(data):
            return
        yield begin, end
        begin = end


def _records(data: bytes) -> Iterator[Record]:
    """The messages; what is behind the last complete message counts as lines."""
    whole = 0
    for begin, whole in _spans(data):
        text = data[begin:whole].strip(_LINE_ENDS)
        if text.strip():
            yield Record(begin, whole, _event_of(text))
    for record in lines_of(data[whole:], _event):
        yield replace(record, begin=whole + record.begin, end=whole + record.end)


def _event_of(text: bytes) -> Event | None:
    try:
        return _event(text.decode())
    except UnicodeDecodeError:
        return None


def _ends(data: bytes) -> int:
    """Position where the last complete message ends. Zeros at the end may still be overwritten."""
    return max((end for _, end in _spans(data.rstrip(b"\0"))), default=0)


FORMAT = Text(
    "syslog",
    looks_like=re.compile(
        r"(?:\d{1,7} )?<\d{1,3}>|\d{4}-\d\d-\d\dT\S+ \S+ [^\s:\[]+(?:\[[^\]]*\])?: |[A-Z][a-z]{2} [ \d]\d \d\d:"
    ),
    records=_records,
    ends=_ends,
)
