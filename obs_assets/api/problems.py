"""Problems as clients see them: RFC 9457, a closed list of types, no message of a database."""

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from obs_assets.api.counters import route_of
from obs_assets.errors import ObsError, TransientError
from obs_assets.search.language import QuerySyntaxError
from obs_assets.search.original import TooWideError
from obs_assets.search.rows import QueryValueError

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A type of problem.

    Attributes:
        name: its name in ``type``, ``/problems#<name>``.
        status: HTTP status.
        title: a few words.
        meaning: sentences for the page ``/problems``: the cause, and the client's next step.
    """

    name: str
    status: int
    title: str
    meaning: str


PARAMETER = Kind(
    "parameter",
    400,
    "Wrong parameter",
    "A parameter is unknown, is given twice, or has a value that it cannot have. `parameter` names it.",
)
QUERY = Kind(
    "query",
    400,
    "The query cannot be read",
    "`position` is the place of the mistake in the query, in characters from 0; `expected` says what "
    "could stand there.",
)
CURSOR = Kind(
    "cursor",
    400,
    "Wrong cursor",
    "A cursor belongs to a query, a range and an order: use it with the same parameters, or search anew.",
)
UNAUTHORIZED = Kind(
    "unauthorized",
    401,
    "Who asks is not known",
    "Send a token in the header `Authorization: Bearer …`. `obs tokens add` makes one.",
)
FORBIDDEN = Kind(
    "forbidden",
    403,
    "Not allowed",
    "The token is known, but it has not the scope that this path needs.",
)
NOT_FOUND = Kind("not-found", 404, "Not found", "The path or the event does not exist.")
METHOD = Kind("method", 405, "Wrong method", "The path does not take this method.")
GONE = Kind(
    "gone",
    410,
    "Not there any more",
    "The event's hour was replaced or has expired; the detail says when.",
)
HOST = Kind(
    "host",
    421,
    "Unknown host",
    "The request asks for a name that this server does not have: `OBS_API_HOSTS` lists its names.",
)
TOO_WIDE = Kind(
    "too-wide",
    422,
    "Too much to read",
    "The question would read too many rows: ask about a narrower range, or search with fewer conditions.",
)
BUSY = Kind(
    "busy",
    429,
    "Too many questions at a time",
    "Other questions use all places. Ask again after the seconds of `Retry-After`.",
)
INTERNAL = Kind(
    "internal",
    500,
    "A fault of the server",
    "The log of the server has the place of the fault. Please report it.",
)
ARCHIVE = Kind(
    "archive",
    502,
    "The archive cannot be read",
    "The detail names the object or the server of the archive. The table answers as before.",
)
UNAVAILABLE = Kind(
    "unavailable",
    503,
    "The database cannot answer now",
    "The log of the server says why. Ask again after the seconds of `Retry-After`.",
)
NOT_READY = Kind(
    "not-ready",
    503,
    "The tables cannot be read",
    "The tables or the role of readers are missing: run `obs postgres init`.",
)

KINDS = (
    PARAMETER,
    QUERY,
    CURSOR,
    UNAUTHORIZED,
    FORBIDDEN,
    NOT_FOUND,
    METHOD,
    GONE,
    HOST,
    TOO_WIDE,
    BUSY,
    INTERNAL,
    ARCHIVE,
    UNAVAILABLE,
    NOT_READY,
)
"""Every type of problem that this server answers."""

RETRY_S = 2
"""Seconds after which a client may ask again."""


class ProblemError(Exception):
    """An answer that is a problem.

    Attributes:
        kind: its type.
        detail: a sentence for a person.
        members: further members of the answer.
    """

    def __init__(self, kind: Kind, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.members = members


class ProblemDetails(BaseModel):
    """The body of a problem (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    parameter: str | None = None
    position: int | None = None
    expected: str | None = None
    error: str | None = None
    message: str | None = None


def wrong_parameter(name: str, detail: str) -> NoReturn:
    """Answer that a parameter is wrong."""
    raise ProblemError(PARAMETER, detail, parameter=name)


def answer(kind: Kind, detail: str, **members: Any) -> Response:
    """A problem as a response."""
    headers: dict[str, str] = {}
    if kind.status in {BUSY.status, UNAVAILABLE.status}:
        headers["Retry-After"] = str(RETRY_S)
    if kind.status == UNAUTHORIZED.status:
        headers["WWW-Authenticate"] = "Bearer"
    body = {
        "type": f"/problems#{kind.name}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        # The names that clients of the older paths read.
        "error": kind.title,
        "message": detail,
        **members,
    }
    return JSONResponse(body, kind.status, headers, media_type=MEDIA_TYPE)


def handle_problems(app: FastAPI) -> None:
    """Answer every error of an application as a problem."""
    app.add_exception_handler(ProblemError, _of_problem)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(QuerySyntaxError, _of_query)
    app.add_exception_handler(QueryValueError, _of_query)
    app.add_exception_handler(TooWideError, _of_too_wide)
    app.add_exception_handler(ObsError, _of_obs)
    app.add_exception_handler(Exception, _of_anything)


def _of_problem(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, ProblemError)  # noqa: S101 - registered for this class
    return answer(error.kind, error.detail, **error.members)


def _of_query(request: Request, error: Exception) -> Response:
    del request
    members: Mapping[str, Any] = {"parameter": "q"}
    if isinstance(error, QuerySyntaxError):
        members = {**members, "position": error.position, "expected": error.expected}
    return answer(QUERY, str(error), **members)


def _of_too_wide(request: Request, error: Exception) -> Response:
    del request
    return answer(TOO_WIDE, str(error))


def _of_validation(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    name = str(first["loc"][-1])
    message = str(first["msg"])
    return answer(PARAMETER, f"{name}: {message}", parameter=name)


def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code == METHOD.status:
        answered = answer(METHOD, f"{request.method} is not a method of this path")
        answered.headers.update(error.headers or {})
        # The page's files take every path that no route has with this method: they name their own.
        methods = _methods_of(request)
        if methods:
            answered.headers["Allow"] = ", ".join(methods)
        return answered
    if error.status_code == NOT_FOUND.status:
        return answer(NOT_FOUND, "nothing is at this path: /docs lists the paths")
    return answer(PARAMETER, "the request cannot be read")


def _methods_of(request: Request) -> list[str]:
    """Methods of a path that the document names."""
    paths: Mapping[str, Mapping[str, object]] = request.app.openapi()["paths"]
    return sorted(method.upper() for method in paths.get(request.url.path, ()))


def _of_obs(request: Request, error: Exception) -> Response:
    """An error of ours that no route has turned into a problem: the database or this machine is at fault."""
    # Its message can quote the server; it is for the log.
    _log.warning("%s %s: %s", request.method, route_of(request.scope), error)
    if isinstance(error, TransientError):
        return answer(UNAVAILABLE, "the database does not answer: ask again in a moment")
    return answer(
        NOT_READY, "the tables cannot be read: run `obs postgres init`, or see the server's log"
    )


def _of_anything(request: Request, error: Exception) -> Response:
    # Not the message: it can quote an event or a query.
    place = traceback.extract_tb(error.__traceback__)[-1]
    _log.error(
        "%s %s: %s at %s:%s",
        request.method,
        route_of(request.scope),
        type(error).__name__,
        place.filename,
        place.lineno,
    )
    return answer(INTERNAL, "the server's log has the place of the fault")
