"""Splunk's HTTP Event Collector: ``/services/collector/event`` and ``/services/collector/raw``.

A request becomes a line for each event, in the form in which Splunk's clients send it; landing's row
``splunk`` makes the event.
https://docs.splunk.com/Documentation/Splunk/latest/Data/HECRESTendpoints
"""

import json

from obs_assets.receive.bodies import RefusedError
from obs_assets.receive.exchange import Answer, Checked, Protocol, Request, json_answer
from obs_assets.receive.records import decoded, object_at, objects

SOURCETYPE = "httpevent"
"""Splunk's source type of an event that names none."""

_ABOUT = ("host", "source", "sourcetype", "index")
"""Parameters of ``/raw`` that say something about all of its events."""

_CODES = {400: 6, 401: 2, 403: 4, 413: 27, 429: 9, 503: 9}
"""HTTP status → Splunk's own code; 8 for the others."""


def _check_events(request: Request) -> Checked:
    found = list(objects(decoded(request.body)))
    if not found:
        raise RefusedError(400, "No data")
    lines: list[str] = []
    for number, record in enumerate(found):
        # As Splunk does it, a wrong event refuses the request.
        if record.reason or "event" not in record.value:
            reason = record.reason or "the field event is missing"
            raise RefusedError(400, f"Invalid data format: {reason}", position=number)
        lines.append(_with_defaults(record.text, set(record.value), request.received_at))
    return _checked(lines)


def _with_defaults(text: str, names: set[str], received_at: float) -> str:
    """The object with its time and source type, if it has none."""
    added = ""
    if "time" not in names:
        added += f'"time":{received_at:.3f},'
    if "sourcetype" not in names:
        added += f'"sourcetype":"{SOURCETYPE}",'
    return "{" + added + text.removeprefix("{")


def _check_raw(request: Request) -> Checked:
    about = {name: request.query[name] for name in _ABOUT if name in request.query}
    about = {"sourcetype": SOURCETYPE, **about}
    head = json.dumps({"time": round(request.received_at, 3), **about}, ensure_ascii=False)
    lines: list[str] = []
    for line in decoded(request.body).splitlines():
        if not line.strip():
            continue
        text = line.strip()
        found, end = object_at(text, 0)
        # A line that is a JSON object is an event of its own fields.
        if found.reason or end != len(text):
            text = json.dumps(line, ensure_ascii=False)
        lines.append(f'{head[:-1]},"event":{text}}}')
    if not lines:
        raise RefusedError(400, "No data")
    return _checked(lines)


def _checked(lines: list[str]) -> Checked:
    written = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    return Checked(written, json_answer(200, {"text": "Success", "code": 0}), len(lines))


def _refuse(error: RefusedError, content_type: str) -> Answer:
    del content_type
    code = _CODES.get(error.status, 8)
    if error.detail == "No data":
        code = 5
    answer: dict[str, object] = {"text": error.detail, "code": code}
    if error.position is not None:
        answer["invalid-event-number"] = error.position
    status = error.status
    if status == 429:  # noqa: PLR2004 - Splunk's clients know "server is busy" as 503
        status = 503
    return json_answer(status, answer)


EVENTS = Protocol("hec", _check_events, _refuse)
RAW = Protocol("hec_raw", _check_raw, _refuse)

HEALTH = json_answer(200, {"text": "HEC is healthy", "code": 17})
"""Answer of ``/services/collector/health``."""
