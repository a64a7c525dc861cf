"""Unpacks compressed and encoded event files piece by piece, into UTF-8, and changes the form of a text.

The first bytes show the packing of a file, not its name. All bytes after a fault are lost, and few bytes before it.

`gzip` and `compression.zstd` unpack up to a megabyte at a time, in newer versions of Python even more, and a fault in
that piece loses all of it. So this module unpacks small pieces. But a fault is detected some hundred bytes late, and
the bytes unpacked until then are noise that may look like events. So the last pieces before a fault are left out.
"""

import codecs
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PIECE = 4096
"""Compressed bytes that are read at a time. In gzip they become 4 MB at most (RFC 1951); a block of zstd has 128 KB."""

_DOUBTFUL = 2
"""Pieces that are left out before the piece with a fault."""

_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),  # with the header and the checksum of gzip
    ".zst": zstd.ZstdDecompressor,
}
COMPRESSIONS = tuple(_DECOMPRESSORS)
"""Endings of the names of files that can be unpacked."""

_SIGNATURES = (
    (b"\x1f\x8b", ".gz"),
    (b"\x28\xb5\x2f\xfd", ".zst"),
    *(
        (bytes([low]) + b"\x2a\x4d\x18", ".zst") for low in range(0x50, 0x60)
    ),  # a frame that readers skip
    (b"\xfd7zXZ\x00", ".xz"),
    (b"BZh", ".bz2"),
    (b"\x04\x22\x4d\x18", ".lz4"),
    (b"PK\x03\x04", ".zip"),
)
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark begins with the same bytes
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PEEKED = 8
"""First unpacked bytes of a layer, which show the packing below it."""
_MOST_LAYERS = 4
"""Layers that are unpacked at most, if a file was packed several times by mistake."""


class Readable(Protocol):
    """A file to read bytes from."""

    def read(self, length: int, /) -> bytes:
        """The next bytes, at most this number; empty at the end."""
        ...


class DamagedError(Exception):
    """The rest of a compressed file cannot be unpacked."""


def packing_of(first: bytes) -> str:
    """Packing of a file that begins with these bytes.

    Returns:
        a member of `COMPRESSIONS`; another compression, as the ending of a file name; an encoding, by its Python name;
        empty for plain UTF-8. UTF-16 without a byte order mark is recognised by its first two characters, which are
        ASCII in JSON.

    >>> packing_of(b"\\x1f\\x8b\\x08"), packing_of(b'{\\0"\\0'), packing_of(b'{"a":1}')
    ('.gz', 'utf-16-le', '')
    """
    for signature, kind in (*_SIGNATURES, *_BYTE_ORDER_MARKS):
        if first.startswith(signature):
            return kind
    match [byte > 0 for byte in first[:4]]:
        case [True, False, True, False] if first[:1] in b"{[":
            return "utf-16-le"
        case [False, True, False, True] if first[1:2] in b"{[":
            return "utf-16-be"
    return ""


def is_encoding(packing: str) -> bool:
    """Whether a packing is an encoding of text."""
    return packing.startswith("utf-")


def layers(packed: Readable, first: bytes) -> tuple[tuple[str, ...], Iterator[bytes]]:
    """All packings of a file, the outermost first, and the blocks of UTF-8 in it.

    The blocks raise `DamagedError` or `EOFError` as `unpacked` does. If a packing is not supported, it comes last, and
    there are no blocks.

    Args:
        packed: the file, at its beginning.
        first: its first bytes.
    """
    found: list[str] = []
    blocks: Iterator[bytes] = iter(())
    while (kind := packing_of(first)) and len(found) < _MOST_LAYERS:
        found.append(kind)
        if is_encoding(kind):
            return tuple(found), _transcoded(packed, kind)
        if kind not in COMPRESSIONS:
            return tuple(found), iter(())
        first, blocks = _peeked(unpacked(packed, kind))
        packed = _Blocks(blocks)
    return tuple(found), blocks if not isinstance(packed, _Blocks) else packed.rest()


class _Blocks:
    """Reads a sequence of blocks like a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks

    def read(self, length: int, /) -> bytes:
        block = next(self._blocks, b"")
        if len(block) > length:
            self._blocks = _chained(block[length:], self._blocks)
        return block[:length]

    def rest(self) -> Iterator[bytes]:
        """The blocks that were not read yet."""
        return self._blocks


def _chained(block: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield block
    yield from blocks


def _peeked(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and all blocks; a fault is raised at its place."""
    taken: list[bytes] = []
    fault: Exception | None = None
    try:
        while sum(map(len, taken)) < _PEEKED and (block := next(blocks, None)) is not None:
            taken.append(block)
    except (EOFError, DamagedError) as error:
        fault = error

    def again() -> Iterator[bytes]:
        yield from taken
        if fault:
            raise fault
        yield from blocks

    return b"".join(taken)[:_PEEKED], again()


def _transcoded(encoded: Readable, encoding: str) -> Iterator[bytes]:
    """A text in UTF-8, without its byte order mark. Half a surrogate pair becomes bytes that are not valid UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    is_first = True
    while block := encoded.read(_PIECE):
        try:
            text = decoder.decode(block)
        except UnicodeDecodeError:
            raise DamagedError from None
        if is_first and text:
            text, is_first = text.removeprefix("\ufeff"), False
        if text:
            yield text.encode("utf-8", "surrogatepass")
    if decoder.getstate()[0]:
        raise EOFError


def other_forms(first: bytes) -> Iterator[tuple[str, ...]]:
    """The forms in which a file may have landed before it was written again as it is now.

    A form is a sequence of changes: a byte order mark is added or removed, line ends become those of Windows or of
    Unix. Changes that leave the first bytes as they are can still change the bytes behind them.

    Args:
        first: first bytes of the file.

    >>> list(other_forms(b'{}\\n{}\\n'))
    [('crlf',), ('mark',), ('mark', 'crlf')]
    """
    mark = "no_mark" if first.startswith(codecs.BOM_UTF8) else "mark"
    is_windows = b"\r\n" in first
    ends: list[tuple[str, ...]] = [()] if is_windows else [(), ("crlf",)]
    if is_windows or b"\n" not in first:
        ends.append(("lf",))
    for marks in ((), (mark,)):
        yield from (form for end in ends if (form := (*marks, *end)))


def in_form(blocks: Iterator[bytes], form: tuple[str, ...]) -> Iterator[bytes]:
    """The blocks of a text after the changes of a form, see `other_forms`."""
    for change in form:
        blocks = _CHANGES[change](blocks)
    return blocks


def _with_mark(blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield codecs.BOM_UTF8
    yield from blocks


def _without_mark(blocks: Iterator[bytes]) -> Iterator[bytes]:
    first, rest = _peeked(blocks)
    block = next(rest, b"")
    while len(block) < len(first):
        block += next(rest)
    yield block.removeprefix(codecs.BOM_UTF8)
    yield from rest


def _with_unix_line_ends(blocks: Iterator[bytes]) -> Iterator[bytes]:
    held = b""  # a carriage return at the end of a block: its line feed may follow
    for block in blocks:
        text = held + block
        held = b"\r" if text.endswith(b"\r") else b""
        yield text.removesuffix(held).replace(b"\r\n", b"\n")
    yield held


def _with_windows_line_ends(blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        yield block.replace(b"\n", b"\r\n")


_CHANGES: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
    "mark": _with_mark,
    "no_mark": _without_mark,
    "lf": _with_unix_line_ends,
    "crlf": _with_windows_line_ends,
}


def unpacked(packed: Readable, compression: str) -> Iterator[bytes]:
    """The unpacked bytes of a compressed file, member after member, in blocks.

    Args:
        packed: the file, at its beginning.
        compression: a member of `COMPRESSIONS`.

    Raises:
        DamagedError: the rest cannot be unpacked.
        EOFError: the file ends within a member; the bytes before the end were returned.
    """
    member: Any = None
    held: deque[bytes] = deque()
    data, is_first = b"", True
    while data or (data := packed.read(_PIECE)):
        if member is None:
            # Zeros may fill the space between members
            data = data if is_first else data.lstrip(b"\0")
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
