"""Compressed event files, unpacked piece by piece: what is behind a fault is lost, and little before it.

`gzip` and `compression.zstd` unpack up to a megabyte at a time, more in newer versions of Python, and all of it is lost
when there is a fault in it. On the other hand a fault is noticed some hundred bytes late, and what has been unpacked
until then is noise that may look like events: so the last pieces before it do not count.
"""

import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PIECE = 4096
"""Compressed bytes at a time. They become 4 MB at the most in gzip (RFC 1951), a block of zstd 128 KB."""

_DOUBTFUL = 2
"""Pieces before the one with a fault."""

_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),  # with the header and the checksum of gzip
    ".zst": zstd.ZstdDecompressor,
}
COMPRESSIONS = tuple(_DECOMPRESSORS)
"""How the names of files end that are unpacked."""


class DamagedError(Exception):
    """A compressed file goes on with what cannot be unpacked."""


def unpacked(packed: IO[bytes], compression: str) -> Iterator[bytes]:
    """What a compressed file holds, one member after the other, in blocks.

    Args:
        packed: the file, at its beginning.
        compression: one of `COMPRESSIONS`.

    Raises:
        DamagedError: no more can be unpacked.
        EOFError: the file ends within a member; what there is of it was yielded.
    """
    member: Any = None
    held: deque[bytes] = deque()
    data, is_first = b"", True
    while data or (data := packed.read(_PIECE)):
        if member is None:
            data = data if is_first else data.lstrip(b"\0")  # which may fill the space between members
            member, is_first = _DECOMPRESSORS[compression]() if data else None, False
            continue
        try:
            held.append(member.decompress(data))
        except (zlib.error, zstd.ZstdError):
            raise DamagedError from None
        data = member.unused_data if member.eof else b""
        while held and (member.eof or len(held) > _DOUBTFUL):
            if block := held.popleft():
                yield block
        member = None if member.eof else member
    if member is not None:
        yield from filter(None, held)
        raise EOFError
