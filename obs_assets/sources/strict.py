"""Finds text that DuckDB's parser accepts although it is not strict JSON.

These are NaN, Infinity and a comma before a closing bracket; numbers that overflow a double elsewhere; and a carriage
return, which some readers of the event take for a line end. Inside strings all of these are harmless: the careful lane
decides that.
"""

import numpy as np
import numpy.typing as npt

_SUSPICIOUS = r"(?:(?i:nan|inf|inity)|\d[eE](?:\+?\d{3,}|-\d{5,})|,)\s*[,}\]]|\d{200}|\r"

IS_STRICT = f"""NOT regexp_matches(line, '{_SUSPICIOUS}')
    AND strlen(line) - strlen(replace(replace(line, '{{', ''), '[', '')) <= $max_nesting"""
"""SQL over ``line``: whether JSON in it is strict JSON, and not deeper than ``$max_nesting``.

It costs more than parsing, so it is used only for lines with `doubtful_places`.
"""

_BLOCK = 1 << 17
"""Bytes of a block that fits a processor's cache."""
_WORD = 64
"""Bytes for which the closing brackets are counted together."""
_SAMPLE = 16
"""Distance of the sampled bytes: a number of 200 digits fills at least twelve samples in a row."""
# Digits of an exponent: fewer digits are harmless, more digits are always suspicious
_FEWEST_DIGITS, _EXPONENT_DIGITS = (
    3,
    21,
)
_MOST_BLANKS = 4
"""Blanks behind a value that are skipped; behind more blanks, the place is always doubtful."""
_TEN = 10
_ENDS_ODDLY = np.isin(np.arange(256), [*range(ord(" ") + 1), *b",nNfFyY"])


def doubtful_places(
    data: bytes | bytearray,
    view: npt.NDArray[np.uint8],
    bounds: npt.NDArray[np.int64],
    max_nesting: int,
) -> npt.NDArray[np.int64]:
    """Positions where `IS_STRICT` may refuse text that DuckDB accepts: all such positions, and few others.

    A value ends before a comma or a closing bracket, so only the bytes before those are searched.
    """
    if not len(view):
        return np.array([], np.int64)
    ends, closing = _ends(view)
    found = [_suspicious_ends(view, ends)]
    before = np.concatenate([[0], np.cumsum(closing, dtype=np.int64)])
    most = before[-(-bounds[1:] // _WORD)] - before[bounds[:-1] // _WORD]
    found.append(bounds[:-1][most > max_nesting])
    samples = _is_digit(view[::_SAMPLE])
    for distance in (1, 2, 4, 4):  # two, four, eight and at last twelve samples in a row
        samples = samples[:-distance] & samples[distance:]
    found.append(np.flatnonzero(samples) * _SAMPLE)
    # A carriage return before a newline belongs to the line end
    if b"\r" in data:
        found.append(np.flatnonzero((view[:-1] == ord("\r")) & (view[1:] != ord("\n"))))
    return np.concatenate(found)


def _ends(view: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Commas and closing brackets behind values other than strings, and the number of closing brackets in each `_WORD`.

    The search reuses the same memory block by block: new memory would take more time than all the rest.
    """
    ends, closing = [], []
    folded, is_closing, is_end, is_other = np.empty((4, _BLOCK), np.uint8)
    for start in range(0, len(view), _BLOCK):
        block = view[start : start + _BLOCK]
        size = len(block)
        if size < _BLOCK:
            folded, is_closing, is_end, is_other = np.zeros(
                (4, -(-size // _WORD) * _WORD), np.uint8
            )
        # With this bit, "]" becomes "}": a single comparison finds both
        np.bitwise_or(block, 0x20, out=folded[:size])
        np.equal(folded, ord("}"), out=is_closing.view(np.bool_))
        np.equal(block, ord(","), out=is_end[:size].view(np.bool_))
        is_end |= is_closing
        behind = max(start, 1)  # there is no byte before the first byte
        np.not_equal(
            view[behind - 1 : start + size - 1],
            ord('"'),
            out=is_other[behind - start : size].view(np.bool_),
        )
        is_end &= is_other
        ends.append(np.flatnonzero(is_end.view(np.bool_)) + start)
        closing.append(np.bitwise_count(np.packbits(is_closing).view(np.uint64)))
    places = np.concatenate(ends)
    # There is no value before this position, so no search reads further back
    return places[np.searchsorted(places, len('{"":')) :], np.concatenate(closing)


def _suspicious_ends(
    view: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The ends behind a comma, a number that is not finite, or many blanks."""
    values = _without_blanks(view, ends)
    last = view[values]
    is_odd = _ENDS_ODDLY[last]
    odd, few, is_comma = values[is_odd], last[is_odd] | 0x20, last[is_odd] == ord(",")
    # NaN, Inf and Infinity are found by their last three letters, in any case
    is_word = (
        (few == ord("n"))
        & (_letter(view, odd, 1) == ord("a"))
        & (_letter(view, odd, 2) == ord("n"))
    )
    is_word |= (
        (few == ord("f"))
        & (_letter(view, odd, 1) == ord("n"))
        & (_letter(view, odd, 2) == ord("i"))
    )
    is_word |= (
        (few == ord("y"))
        & (_letter(view, odd, 1) == ord("t"))
        & (_letter(view, odd, 2) == ord("i"))
    )
    is_blank = view[odd] <= ord(" ")
    return np.concatenate(
        [odd[is_word | is_blank | is_comma], _large_exponents(view, values[_is_digit(last)])]
    )


def _without_blanks(
    view: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Position where the value before each of these ends stops; still at a blank after `_MOST_BLANKS`."""
    values = ends - 1
    blank = np.flatnonzero(view[values] <= ord(" "))
    for _ in range(_MOST_BLANKS):
        values[blank] -= 1
        blank = blank[view[values[blank]] <= ord(" ")]
    return values


def _large_exponents(
    view: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Those last digits of numbers that follow many digits, so that they may belong to a large exponent."""
    found = []
    for number in range(1, _EXPONENT_DIGITS):
        before = view[places - number]
        if number >= _FEWEST_DIGITS:
            signed = places[(before == ord("-")) | (before == ord("+"))]
            found += [
                places[(before | 0x20) == ord("e")],
                signed[_letter(view, signed, number + 1) == ord("e")],
            ]
        places = places[_is_digit(before)]
    return np.concatenate([*found, places])


def _letter(
    view: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], back: int
) -> npt.NDArray[np.uint8]:
    return view[places - back] | np.uint8(0x20)


def _is_digit(characters: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    # A character below "0" wraps around to a large number
    return (characters - np.uint8(ord("0"))) < _TEN
