"""``POST /v1/logs``: OpenTelemetry's logs over HTTP, as Protocol Buffers or JSON.

A request becomes a line of OTLP/JSON, which landing takes apart. A record that landing would refuse is
left out, and the answer counts it (partial success).
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import base64
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from obs_assets.events import MAX_NESTING
from obs_assets.receive.bodies import RefusedError
from obs_assets.receive.exchange import Answer, Checked, Protocol, Request, json_answer
from obs_assets.receive.records import decoded, object_at, on_one_line
from obs_assets.sources.json_text import is_too_deep

PROTOBUF = "application/x-protobuf"

_JSON = "application/json"

_HEXADECIMAL = frozenset({"traceId", "spanId", "parentSpanId"})
"""Fields of bytes that OTLP/JSON writes in hexadecimal digits; other bytes are written in base64."""

_ENVELOPE_NESTING = 1_000
"""Levels of a whole request; each record may have `MAX_NESTING`."""

_LISTS = (
    ("resourceLogs", "resource_logs"),
    ("scopeLogs", "scope_logs"),
    ("logRecords", "log_records"),
)
"""Names of the lists that lead to the records, in the two spellings of JSON."""


def _check(request: Request) -> Checked:
    if request.content_type == PROTOBUF:
        envelope = _from_protobuf(request.body)
        text = ""
    elif request.content_type == _JSON:
        text = decoded(request.body).strip()
        found, end = object_at(text, 0, _ENVELOPE_NESTING)
        if found.reason or text[end:].strip():
            raise RefusedError(400, f"the body is no JSON object: {found.reason or 'not_json'}")
        envelope = found.value
    else:
        raise RefusedError(415, f"Content-Type is neither {PROTOBUF} nor {_JSON}")
    rejected = _take_out_refused(envelope)
    if text and rejected:
        # The numbers of `envelope` are floats, so it is read again with all digits.
        envelope = json.loads(text)
        _take_out_refused(envelope)
    records = sum(len(holder[name]) for holder, name in _record_lists(envelope))
    if not text or rejected:
        text = json.dumps(envelope, separators=(",", ":"), ensure_ascii=False)
    lines = b""
    if records:
        lines = f"{on_one_line(text)}\n".encode("utf-8", "surrogatepass")
    answer = _answer(rejected, request.content_type)
    return Checked(lines, answer, records, rejected)


def _record_lists(envelope: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Each object that holds a list of log records, and the name of that list.

    Raises:
        RefusedError: a list on the way is no list of objects.
    """
    holders = [envelope]
    for names in _LISTS[:-1]:
        inner: list[Any] = []
        for holder in holders:
            for name in names:
                inner += _objects(holder.get(name))
        holders = inner
    for holder in holders:
        for name in _LISTS[-1]:
            value = holder.get(name)
            if value is None:
                continue
            if not isinstance(value, list):
                raise RefusedError(400, f"{name} is no list")
            yield holder, name


def _objects(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RefusedError(400, "the body is no ExportLogsServiceRequest")
    return value


def _take_out_refused(envelope: Any) -> int:
    """Remove the records that landing would refuse; returns their number."""
    refused = 0
    for holder, name in _record_lists(envelope):
        kept = [record for record in holder[name] if _is_accepted(record)]
        refused += len(holder[name]) - len(kept)
        holder[name] = kept
    return refused


def _is_accepted(record: Any) -> bool:
    if not isinstance(record, dict):
        return False
    # Only values of attributes and of the body can be nested deeply.
    nested = (record.get("body"), record.get("attributes"))
    if not any(isinstance(value, dict | list) and value for value in nested):
        return True
    try:
        text = json.dumps(nested).encode()
    except RecursionError:
        return False
    return not is_too_deep(text, MAX_NESTING)


# -- Protocol Buffers ------------------------------------------------------------------------------


def _from_protobuf(body: bytes) -> dict[str, Any]:
    message = ExportLogsServiceRequest()
    try:
        message.ParseFromString(body)
        return _as_json(message)
    except (DecodeError, RecursionError):
        raise RefusedError(400, "the body is no ExportLogsServiceRequest") from None


def _as_json(message: Message) -> dict[str, Any]:
    """A message by the JSON mapping of OTLP: 64-bit numbers are texts, enumerations are numbers."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        name, write, is_list = _written_as(field)
        if is_list:
            found[name] = [write(item) for item in value]
        else:
            found[name] = write(value)
    return found


@cache
def _written_as(field: FieldDescriptor) -> tuple[str, Any, bool]:
    """Name of a field in JSON, the function that makes its value, and whether it is a list."""
    name = field.json_name
    write: Any = _unchanged
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            write = _as_json
        case FieldDescriptor.CPPTYPE_INT64 | FieldDescriptor.CPPTYPE_UINT64:
            write = str
        case FieldDescriptor.CPPTYPE_DOUBLE:
            write = _number
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            write = _base64
            if name in _HEXADECIMAL:
                write = bytes.hex
    return name, write, field.is_repeated


def _unchanged(value: Any) -> Any:
    return value


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _number(value: float) -> float | str:
    """A double; JSON has no number for NaN and the infinities."""
    if value != value or value in {float("inf"), float("-inf")}:  # noqa: PLR0124 - NaN
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    return value


# -- answers ---------------------------------------------------------------------------------------


def _answer(rejected: int, content_type: str) -> Answer:
    detail = "landing refuses records that are no objects or are nested too deeply"
    if content_type == PROTOBUF:
        response = ExportLogsServiceResponse()
        if rejected:
            response.partial_success.rejected_log_records = rejected
            response.partial_success.error_message = detail
        return Answer(200, response.SerializeToString(), PROTOBUF)
    if not rejected:
        return json_answer(200, {})
    partial = {"rejectedLogRecords": str(rejected), "errorMessage": detail}
    return json_answer(200, {"partialSuccess": partial})


def _refuse(error: RefusedError, content_type: str) -> Answer:
    """google.rpc.Status, in the form of the request."""
    if content_type != PROTOBUF:
        return json_answer(error.status, {"message": error.detail})
    text = error.detail.encode()
    # Field 2, a text; its length has a single byte up to 127.
    text = text[:127]
    return Answer(error.status, b"\x12" + bytes([len(text)]) + text, PROTOBUF)


PROTOCOL = Protocol("otlp", _check, _refuse)
