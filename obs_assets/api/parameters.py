"""Parameters of a request: a closed list for each path, ranges of time, cursors."""

import base64
import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from fastapi import FastAPI
from psycopg import sql
from starlette.requests import HTTPConnection

from obs_assets.api.problems import CURSOR, ProblemError, wrong_parameter
from obs_assets.errors import ConfigurationError
from obs_assets.search.moments import moment
from obs_assets.search.questions import EARLIEST, LATEST, Order, Position, Span
from obs_assets.search.ranges import asked_span
from obs_assets.storage.postgres import Connection

Value = TypeVar("Value")

# Raised when the members of a cursor change: an old cursor is refused, not misread.
CURSOR_VERSION = 1


# -- names -----------------------------------------------------------------------------------------


def listed_parameters(app: FastAPI) -> dict[str, dict[str, bool]]:
    """Path → its parameters in the query, and whether each may be repeated, from the OpenAPI document."""
    found: dict[str, dict[str, bool]] = {}
    for path, methods in app.openapi()["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", ()):
            if parameter["in"] == "query":
                names = found.setdefault(path, {})
                names[parameter["name"]] = _is_list(parameter["schema"])
    return found


def _is_list(schema: Mapping[str, Any]) -> bool:
    # An optional list is described as `anyOf` a list and null.
    kinds = [schema, *schema.get("anyOf", ())]
    return any(kind.get("type") == "array" for kind in kinds)


async def refuse_unknown(request: HTTPConnection) -> None:
    """Raise for a parameter that the path does not have, or that is given twice.

    Raises:
        ProblemError: see above.
    """
    if request.scope["type"] == "websocket":
        return  # its parameters are in its first message
    listed = request.app.state.parameters
    known: dict[str, bool] = listed.get(request.scope["route"].path, {})
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            wrong_parameter(name, _unknown(name, list(known)))
        if names.count(name) > 1 and not known[name]:
            wrong_parameter(name, f"{name} is given {names.count(name)} times: give it once")


def _unknown(name: str, known: list[str]) -> str:
    # A misspelt parameter that is ignored would give an answer to another question.
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"there is no parameter {name!r} here; did you mean {near[0]!r}?"
    if not known:
        return f"there is no parameter {name!r} here: this path takes none"
    return f"there is no parameter {name!r} here; there are {', '.join(known)}"


def read(name: str, function: Callable[..., Value], *arguments: Any, **options: Any) -> Value:
    """The value of a parameter as a function reads it.

    Raises:
        ProblemError: the function refuses the value.
    """
    try:
        return function(*arguments, **options)
    except ConfigurationError as error:
        wrong_parameter(name, f"{name}: {error}")


def read_range(
    connection: Connection, table: sql.Identifier, since: str, until: str, now: datetime
) -> Span:
    """The range of the parameters ``from`` and ``to``, see `ranges.asked_span`.

    Raises:
        ProblemError: one of them is no moment, or both are no range; it names the parameter.
    """
    # By itself first: the range names `from`.
    if until:
        read("to", moment, until, now)
    return read("from", asked_span, connection, table, since, until, now)


# -- ranges and cursors ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """A part of an answer that has more rows than its limit.

    Attributes:
        span: the range of the whole answer.
        after: the row to go on behind; None for the first page.
    """

    span: Span
    after: Position | None = None


@dataclass(frozen=True)
class Asked:
    """A search as a client asks for it; all pages of an answer have the same.

    Attributes:
        query: the query as its tree prints it: other blanks make no other search.
        order: which rows come first.
        since: the parameter ``from``.
        until: the parameter ``to``.
    """

    query: str
    order: Order
    since: str
    until: str

    @property
    def name(self) -> str:
        """Short name of the search: a cursor of another search must not be used."""
        # JSON keeps the borders between the parts: ('a', 'bc') and ('ab', 'c') must differ.
        parts = [self.query, self.order, self.since, self.until]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def asked_page(
    connection: Connection, table: sql.Identifier, asked: Asked, cursor: str
) -> Page:
    """The page that a request asks for.

    Args:
        connection: within `snapshot`.
        table: the table of events.
        asked: the search.
        cursor: the parameter ``cursor``; empty for the first page.

    Raises:
        ProblemError: a parameter is wrong, or the cursor belongs to another search.
    """
    if not cursor:
        now = datetime.now(UTC)
        span = read_range(connection, table, asked.since, asked.until, now)
        return Page(span)
    try:
        name, page = _read_cursor(cursor)
    # Every way in which a text that was edited by hand can fail to be a cursor.
    except (ValueError, KeyError, TypeError, OverflowError, ConfigurationError):
        raise ProblemError(CURSOR, "this is no cursor of this server: search anew") from None
    if name != asked.name:
        raise ProblemError(
            CURSOR,
            "the cursor belongs to another q, from, to or order: repeat those of the first page",
        )
    return page


def cursor_of(asked: Asked, page: Page, after: Position) -> str:
    """The cursor of the page behind a row."""
    values = {
        "v": CURSOR_VERSION,
        "of": asked.name,
        "from": page.span.start.isoformat(),
        "to": page.span.end.isoformat(),
        "at": after.id,
    }
    text = json.dumps(values, separators=(",", ":")).encode()
    # Without padding: `=` would have to be escaped in an address.
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _read_cursor(text: str) -> tuple[str, Page]:
    """The name of the search that a cursor belongs to, and its page."""
    # Base64 without padding is not read by Python: up to three signs are added again.
    padded = text.encode("ascii") + b"=" * (-len(text) % 4)
    values = json.loads(base64.b64decode(padded, b"-_", validate=True))
    if values["v"] != CURSOR_VERSION:
        raise ValueError(values["v"])
    start, end = map(datetime.fromisoformat, (values["from"], values["to"]))
    # A cursor comes from outside: a time that PostgreSQL cannot hold is no mistake of the server.
    if not EARLIEST <= start < end <= LATEST:
        raise ValueError(start)
    span = Span(start.astimezone(UTC), end.astimezone(UTC))
    return str(values["of"]), Page(span, Position.of_id(values["at"]))
