"""``/api/v1/export``: every event of a range that matches, as a stream."""

from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from obs_assets.api.about import Q, Since, Until, tables_of
from obs_assets.api.access import needs
from obs_assets.api.parameters import read_range
from obs_assets.api.reader import ROLE
from obs_assets.api.served import served
from obs_assets.api.streams import StreamedAnswer
from obs_assets.search.export import CONTENT_TYPES, Format, export
from obs_assets.search.language import parse
from obs_assets.search.postgres import condition
from obs_assets.search.questions import Span
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import Connection

router = APIRouter(prefix="/api/v1", tags=["export"], dependencies=[Depends(needs("read"))])


@router.get(
    "/export",
    responses={
        200: {
            "content": {
                media: {"schema": {"type": "string"}} for media in CONTENT_TYPES.values()
            }
        }
    },
)
async def export_events(
    request: Request,
    q: Q = "",
    since: Since = "",
    until: Until = "",
    format_: Annotated[Format, Query(alias="format")] = "ndjson",
    formulas: Annotated[
        bool,
        Query(
            description="CSV: leave texts that a spreadsheet takes for formulas as they are."
        ),
    ] = False,
) -> Response:
    """Every event that matches, the oldest first.

    The last record says how many rows were written, and which version of each hour they are of. An
    answer without it was cut.
    """
    query = parse(q)
    condition(query)  # a mistake is found before the answer begins
    parts = served(request)
    tables = tables_of(parts.table)

    def asked(connection: Connection) -> Span:
        now = datetime.now(UTC)
        return read_range(connection, tables.events, since, until, now)

    # A mistake in the range must be answered before the stream begins: then the status is sent already.
    span = await parts.reader.ask(request, asked)
    selection = Selection(tables, query, span)

    def begin(connection: Connection) -> Generator[bytes, None, None]:
        return export(
            connection, selection, form=format_, escape_formulas=not formulas, role=ROLE
        )

    def chunks() -> AsyncGenerator[bytes, None]:
        return parts.reader.chunks(begin)

    name = f"events-{span.start:%Y%m%dT%H%M%SZ}-{span.end:%Y%m%dT%H%M%SZ}.{format_}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamedAnswer(chunks, parts.reader.exports.enter(), CONTENT_TYPES[format_], headers)
