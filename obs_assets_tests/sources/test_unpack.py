"""Compressed files: all that is whole is read, nothing that a fault has made up, whatever the version of Python."""

import gzip
import io
import random
import zlib
from collections.abc import Callable

import pytest

from obs_assets.sources.unpack import DamagedError, unpacked, zstd

PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstd.compress}
TEXT = b"".join(
    b'{"n": %d, "m": %d}\n' % (number, number * 7919 % 1_000_003) for number in range(50_000)
)


def read(packed: bytes, suffix: str) -> tuple[bytes, type[Exception] | None]:
    """What can be read, and what stopped it."""
    text = b""
    try:
        for block in unpacked(io.BytesIO(packed), suffix):
            text += block
    except (DamagedError, EOFError) as fault:
        return text, type(fault)
    return text, None


@pytest.mark.parametrize("suffix", PACK)
def test_members_are_read_one_after_the_other(suffix: str) -> None:
    """As `cat a.gz b.gz` makes them, the second one perhaps later."""
    pack = PACK[suffix]
    assert read(pack(TEXT) + pack(b"") + pack(b"more\n"), suffix) == (TEXT + b"more\n", None)
    assert read(b"", suffix) == (b"", None)


def test_zeros_between_members_are_nothing() -> None:
    """Tapes and some writers fill up blocks with them."""
    assert read(
        gzip.compress(TEXT) + bytes(5000) + gzip.compress(b"more\n") + bytes(9), ".gz"
    ) == (
        TEXT + b"more\n",
        None,
    )


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("left", [1, 3, 4096, 20_000])
def test_of_an_unfinished_file_all_there_is_is_read(suffix: str, left: int) -> None:
    """It is still being written, or the disk was full."""
    packed = PACK[suffix](TEXT)[:-left]
    text, fault = read(packed, suffix)
    assert fault is EOFError
    assert TEXT.startswith(text)
    assert (
        len(text) > len(TEXT) * (1 - left / len(packed)) - 400_000 * (suffix == ".zst") - 40_000
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("suffix", PACK)
def test_before_a_fault_little_is_lost_and_nothing_is_made_up(suffix: str, seed: int) -> None:
    """Noise that unpacks for a while may look like events: none of it is read. Three pieces at most are lost."""
    noise = random.Random(seed)
    packed = bytearray(PACK[suffix](TEXT))
    place = noise.randrange(len(packed) // 4, len(packed))
    packed[place:] = noise.randbytes(len(packed) - place)
    text, _ = read(bytes(packed), suffix)
    assert TEXT.startswith(text)
    if suffix == ".gz":
        whole = zlib.decompressobj(wbits=31).decompress(
            bytes(packed[: max(0, place - 3 * 4096)])
        )
        assert len(text) >= len(whole)


def test_what_is_not_compressed_is_damaged() -> None:
    """A file with the wrong name."""
    assert read(b"not compressed at all\n", ".gz") == (b"", DamagedError)
    assert read(b"not compressed at all\n", ".zst") == (b"", DamagedError)
    assert read(gzip.compress(TEXT) + b"xx", ".gz") == (TEXT, DamagedError)
