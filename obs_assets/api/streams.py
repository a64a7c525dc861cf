"""Answers that take long to send: their places, and clients that take nothing."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

SEND_S = 60.0
"""Seconds that a client may take to accept a piece; then its connection is closed."""


class StreamedAnswer(Response):
    """An answer that is sent piece by piece.

    Args:
        chunks: makes the pieces; called when there is a place.
        place: a place for the time of the answer; it raises a `ProblemError` if there is none.
        media_type: media type of the answer.
        headers: headers of the answer.
    """

    def __init__(
        self,
        chunks: Callable[[], AsyncGenerator[bytes, None]],
        place: AbstractAsyncContextManager[None],
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(media_type=media_type)
        self._chunks = chunks
        self._place = place
        self._own_headers = {
            "Cache-Control": "no-store",
            # nginx would keep pieces back until its buffer is full.
            "X-Accel-Buffering": "no",
            **headers,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Closed here: a generator whose client went away would else end when Python happens to drop it.
        async with self._place, aclosing(self._chunks()) as chunks:
            streaming = StreamingResponse(
                chunks, headers=self._own_headers, media_type=self.media_type
            )
            await streaming(scope, receive, impatient(send))


def impatient(send: Send) -> Send:
    """The function, which gives up on a client that takes nothing for `SEND_S`."""

    async def sending(message: Any) -> None:
        # A client that reads nothing would keep its place, and with it a connection of the database.
        async with asyncio.timeout(SEND_S):
            await send(message)

    return sending
