"""Bodies of requests: read in bounded time and memory, then unpacked."""

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from obs_assets.api.serving import Receive

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PIECE = 1 << 16
"""Bytes that are unpacked at a time."""

_RATIO_FREE = 1 << 20
"""Unpacked bytes from which on `Limits.ratio` applies: a megabyte of equal lines is no bomb."""


class RefusedError(Exception):
    """A request that is not written.

    Attributes:
        status: HTTP status of the answer.
        detail: a sentence for the sender; it holds no part of the request.
        retry_after_s: seconds after which the sender should try again; None if it should not.
        position: number of the wrong record, from 0; None if the request is wrong as a whole.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        retry_after_s: int | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.position = position


@dataclass(frozen=True)
class Limits:
    """Limits of a request.

    Attributes:
        body_bytes: bytes of a body, as it is sent and after it is unpacked.
        ratio: largest factor by which a body may grow when it is unpacked.
        body_s: seconds in which a body must arrive.
        open_bytes: bytes of all bodies that are read and written at a time.
    """

    body_bytes: int = 16 << 20
    ratio: int = 200
    body_s: float = 30.0
    open_bytes: int = 32 << 20


_UNPACKERS: Mapping[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "deflate": zlib.decompressobj,
    "zstd": zstd.ZstdDecompressor,
}
"""Value of ``Content-Encoding`` → makes its decompressor."""


class Room:
    """The memory for bodies that all requests share."""

    def __init__(self, size: int) -> None:
        self._free = size

    def take(self, size: int) -> None:
        """Take bytes.

        Raises:
            RefusedError: there are not enough; the sender should try again.
        """
        if size > self._free:
            raise RefusedError(429, "too many requests at a time", retry_after_s=1)
        self._free -= size

    def give_back(self, size: int) -> None:
        """Give bytes back that were taken."""
        self._free += size


async def read(receive: Receive, declared: str, limits: Limits, room: Room) -> bytes:
    """The body of a request, as it was sent. The caller gives its bytes back to the room.

    Args:
        receive: ASGI's function.
        declared: value of ``Content-Length``; empty without it.
        limits: limits of the request.
        room: memory for bodies.

    Raises:
        RefusedError: the body is too long, too slow or not whole, or memory is short.
    """
    parts: list[bytes] = []
    size = 0
    try:
        if declared.isdigit():
            _refuse_longer(int(declared), limits)
        async with asyncio.timeout(limits.body_s):
            async for part in _parts(receive):
                _refuse_longer(size + len(part), limits)
                room.take(len(part))
                size += len(part)
                parts.append(part)
    except (TimeoutError, RefusedError) as error:
        room.give_back(size)
        if isinstance(error, RefusedError):
            raise
        raise RefusedError(
            408, f"the body did not arrive within {limits.body_s:.0f} s"
        ) from None
    return b"".join(parts)


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    is_whole = False
    while not is_whole:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the connection ended within the body")
        yield message.get("body", b"")
        is_whole = not message.get("more_body", False)


def _refuse_longer(size: int, limits: Limits) -> None:
    if size > limits.body_bytes:
        raise RefusedError(413, f"a body has at most {limits.body_bytes:,} bytes")


def unpacked(body: bytes, encoding: str, limits: Limits) -> bytes:
    """A body after its ``Content-Encoding``.

    Raises:
        RefusedError: the encoding is unknown, the body is damaged, or it becomes too long.
    """
    kind = encoding.strip().lower()
    if kind in {"", "identity"}:
        return body
    if kind not in _UNPACKERS:
        known = ", ".join(_UNPACKERS)
        raise RefusedError(415, f"Content-Encoding is none of {known}")
    most = min(limits.body_bytes, max(_RATIO_FREE, limits.ratio * len(body)))
    parts: list[bytes] = []
    size = 0
    rest = body
    try:
        while rest:
            unpacker = _UNPACKERS[kind]()
            while not unpacker.eof:
                part, rest = _next_piece(unpacker, rest)
                size += len(part)
                if size > most:
                    raise RefusedError(413, "the body becomes too long when it is unpacked")
                if not part and not rest and not unpacker.eof:
                    raise RefusedError(400, f"the body ends within its {kind} data")
                parts.append(part)
            # Behind the end of a member, another member may follow.
            rest = unpacker.unused_data
    except (zlib.error, zstd.ZstdError, EOFError):
        raise RefusedError(400, f"the body is not {kind} data") from None
    return b"".join(parts)


def _next_piece(unpacker: Any, data: bytes) -> tuple[bytes, bytes]:
    """At most `_PIECE` more bytes, and the data that is still to be unpacked."""
    if isinstance(unpacker, zstd.ZstdDecompressor):
        # It keeps the data that it has not used, and takes more only when it needs more.
        return unpacker.decompress(data, _PIECE), b""
    return unpacker.decompress(data, _PIECE), unpacker.unconsumed_tail
