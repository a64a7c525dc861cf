"""syslog: RFC 5424 (``<34>1 2026-11-25T09:00:00Z host app - ID47 - text``), and rsyslog's files with ISO times.

Before a message, its length is accepted, as TCP carries it (RFC 6587); a message ends with a newline or a NUL.

The older form of RFC 3164 has no year in its time: such a line is not an event.
"""

import re

from obs_assets.sources.formats.base import Event, Text, last_line_end, lines_of

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


FORMAT = Text(
    "syslog",
    looks_like=re.compile(
        r"<\d{1,3}>|\d{4}-\d\d-\d\dT\S+ \S+ [^\s:\[]+(?:\[[^\]]*\])?: |[A-Z][a-z]{2} [ \d]\d \d\d:"
    ),
    records=lambda data: lines_of(data, _event),
    ends=last_line_end,
)
