"""A request and its answer, as the protocols see them. Without a server."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from obs_assets.receive.bodies import RefusedError


@dataclass(frozen=True)
class Request:
    """A request after its body was read and unpacked.

    Attributes:
        path: path of the URL.
        query: names and values of the URL's query; of equal names, the last value.
        content_type: media type of the body, without parameters, in lower case.
        body: the body.
        received_at: time of its arrival, seconds since 1970.
    """

    path: str
    query: Mapping[str, str]
    content_type: str
    body: bytes
    received_at: float


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        status: HTTP status.
        body: the body.
        content_type: media type of the body.
        headers: further headers.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """A request that was checked.

    Attributes:
        lines: lines for the event file; the last byte is a line end. Empty if nothing is written.
        answer: the answer after the lines are on disk.
        records: number of records in the lines.
        rejected: number of records that are left out.
    """

    lines: bytes
    answer: Answer
    records: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class Protocol:
    """A way to send events.

    Attributes:
        name: name in figures and logs.
        check: makes lines of a request, or raises `RefusedError`.
        refuse: the answer to a request that is refused, in the form that its senders read.
    """

    name: str
    check: Callable[[Request], Checked]
    refuse: Callable[[RefusedError, str], Answer]


def json_answer(status: int, value: Any, **headers: str) -> Answer:
    """An answer with a JSON body."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value, separators=(",", ":")).encode(), headers=named)
