"""Keys and tokens recognized by their shape: `issuers.txt`, `shapes.txt`, and a rule for issuers in neither table."""

import re
from collections.abc import Iterator
from typing import Any

import re2

from obs_assets.transforms.detectors.base import DIGIT, EDGE, Detector, Span, rows
from obs_assets.transforms.detectors.encodings import SURROGATE
from obs_assets.transforms.detectors.masks import SHOWN, mask_start
from obs_assets.transforms.detectors.names import words, words_of
from obs_assets.transforms.detectors.randomness import is_hex, is_random
from obs_assets.transforms.detectors.values import is_filler

_ALPHABETS = {
    "digit": "0-9",
    "hex": "0-9A-Fa-f",
    "lower": "0-9a-z",
    "upper": "0-9A-Z",
    "alpha": "A-Za-z",
    "alnum": "0-9A-Za-z",
    "word": "0-9A-Za-z_-",
    "dotted": "0-9A-Za-z_.~=-",
    "base64": "0-9A-Za-z+/=_-",
}
_TAIL = "[0-9A-Za-z_.~+/=-]"
_ENOUGH = 10
"""Characters that RE2 looks for after a prefix.

The number is the same for all prefixes, since a separate number for each would make the automaton large. ``find`` then
checks alphabet and length.
"""


_PREFIXES = {
    prefix: (int(least), _ALPHABETS[alphabet])
    for prefix, least, alphabet, _ in rows("issuers.txt")
}
_SHAPES = [(shape, part) for shape, part, _ in rows("shapes.txt")]


_STARTS = frozenset(prefix[:length] for prefix in _PREFIXES for length in (3, 4))
_SHORT_PREFIXES = frozenset(
    ["eyJ", *(prefix for prefix in _PREFIXES if len(prefix) == SHOWN - 1)]
)

_WORDS_OF_SECRETS, _NO_ISSUERS = words("token_prefixes"), words("id_prefixes")
_WORDS_OF_HEX = words("hex_prefixes")
_LONG_RUN, _SHORT_RUN = 30, 20
"""Characters of a random run: a long run is a token, a short run only if its prefix names a secret."""

_HEX_RUN = 32
"""Digits of a hexadecimal token."""

_PREFIX_BEFORE = re.compile(
    r"(?:(?<=[^0-9A-Za-z])|\A)[A-Za-z][0-9A-Za-z]{0,15}(?:[_.-][0-9A-Za-z]{1,40}){0,5}\Z"
)
_MORE = re.compile(r"[0-9A-Za-z_-]*")
"""The rest of base64url behind an unbroken run."""

_OF_NAME = re.compile(r"[^\W_]|\.[a-z]{2,12}(?![0-9A-Za-z_-])")
"""Text behind a run that makes it a part of the name of a host or file: ``main.x9…q.js``."""

_INSIDE = re.compile(r"[0-9A-Za-z][.+]\Z")
"""Text before a prefix that stands inside of a dotted name or of base64: ``s.s.CustomHandler``, ``…Q+EZAK…``."""

_SHORTEST_PREFIX = 3
_LONGEST_PREFIX = 120
"""Characters before a random run in which its prefix is searched for."""

_OWN_LEAST = 16
"""Characters after a prefix of the user that make a token."""
_FEWEST_CHARACTERS = 4
"""Different characters in a token: with fewer it is a placeholder, such as ``ghp_xxxxxxxx``."""

_DIGIT_OR_CAPITAL = re.compile("[0-9A-Z]")


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = 64 << 20
    options.log_errors = False
    return re2.compile(pattern, options)


def prefix_detector(own_prefixes: tuple[str, ...] = ()) -> Detector:
    """The detector for keys that begin with the prefix of an issuer, such as ``ghp_``.

    Args:
        own_prefixes: prefixes of the user's tokens; 16 letters, digits, ``_`` or ``-`` after a prefix make a token.
    """
    prefixes = {**_PREFIXES, **dict.fromkeys(own_prefixes, (_OWN_LEAST, _ALPHABETS["word"]))}
    tails = {
        prefix: re.compile(f"[{alphabet}]{{{least},}}")
        for prefix, (least, alphabet) in prefixes.items()
    }
    lengths = sorted({len(prefix) for prefix in prefixes}, reverse=True)
    any_prefix = f"(?:{'|'.join(map(re2.escape, sorted(prefixes)))})"
    engine = _compiled(f"(?:^|[^0-9A-Za-z]){any_prefix}")

    def find(text: str, _key: str) -> Iterator[Span]:
        done = 0
        for match in _found(engine, text):
            start = match.start() + (not text[match.start()].isalnum())
            if start < done or _INSIDE.search(text[max(0, start - 2) : start]):
                continue
            for length in lengths:
                tail = tails.get(text[start : start + length])
                body = tail.match(text, start + length) if tail else None
                if body is None:
                    continue
                done = max(done, body.end())
                if _is_end(text, body.end()) and _looks_random(body, length):
                    yield _trimmed(text, start, body.end())
                    break
            else:
                if end := _end_of_other(text, start, match.end()):
                    done = max(done, end)
                    yield _trimmed(text, start, end)

    return Detector("api_key", f"{EDGE}{any_prefix}{_TAIL}{{{_ENOUGH}}}", find, mask_start)


_FEWEST_OF_OTHER = 8
"""Different characters in a random run of 20: with fewer it is a placeholder."""

_OTHER_TAIL = re.compile(r"[0-9A-Za-z_-]{20,}")


def _end_of_other(text: str, start: int, end: int) -> int | None:
    """End of a token that has the prefix of an issuer but a new form, since issuers change their forms.

    The prefix must have four characters or end with a sign, and a random run of 20 characters or more must follow.
    None if there is no token.

    Args:
        text: the string.
        start: index at which the prefix begins.
        end: index at which the prefix ends.
    """
    is_clear = end - start > _SHORTEST_PREFIX or text[end - 1] in "_-."
    tail = _OTHER_TAIL.match(text, end) if is_clear else None
    if tail is None or is_hex(tail[0]) or len(set(tail[0].lower())) < _FEWEST_OF_OTHER:
        return None
    if not is_random(tail[0]) or not _is_mixed(tail[0]):
        return None
    return tail.end() if _is_end(text, tail.end()) else None


_SHAPE = _compiled(f"(?:^|[^0-9A-Za-z])({'|'.join(shape for shape, _ in _SHAPES)})")


def _find_shapes(text: str, _key: str) -> Iterator[Span]:
    """Tokens with a shape of `shapes.txt` that stand alone."""
    for match in _found(_SHAPE, text):
        start, end = match.span(1)
        if _is_end(text, end) and not is_filler(text[start:end]):
            yield _trimmed(text, start, end)


_RUN = rf"[0-9A-Za-z][_.-][0-9A-Za-z]{{{_SHORT_RUN}}}"
_WHOLE_RUN = _compiled(f"{_RUN}[0-9A-Za-z]*")


def _find_unknown(text: str, _key: str) -> Iterator[Span]:
    """Tokens of issuers that are in no table: ``acme_pat_`` and an unbroken random run."""
    for match in _found(_WHOLE_RUN, text):
        start = _start_of_unknown(text, *match.span())
        if start is not None and not _OF_NAME.match(text, match.end()):
            tail = _MORE.match(text, match.end())
            yield _trimmed(text, start, tail.end() if tail else match.end())


def _found(engine: Any, text: str) -> Iterator[Any]:
    """The matches of RE2 in a string; only their spans may be used.

    In ASCII, bytes have the indexes of their characters, and RE2 takes half the time for them. RE2 accepts only whole
    characters, so surrogates are replaced.
    """
    told = text.encode() if text.isascii() else SURROGATE.sub("\ufffd", text)
    yield from engine.finditer(told)


def _is_end(text: str, end: int) -> bool:
    """Whether no letter or digit follows at the end of a token."""
    return not text[end : end + 1].isalnum()


def _trimmed(text: str, start: int, end: int) -> Span:
    """The span of a token without the signs at its end, which belong to the sentence."""
    return start, start + len(text[start:end].rstrip(".-~"))


def _looks_random(match: re.Match[str], length: int) -> bool:
    """Whether the text after a prefix is no text in words, such as ``learn-compatible-estimator``.

    Args:
        match: the text after the prefix.
        length: characters of the prefix. A short prefix may be the end of other text: ``s.s.CustomHandler``.
    """
    body = match[0]
    if length < _SHORTEST_PREFIX and not DIGIT.search(body):
        return False
    is_dotted = "." in body.rstrip(".")
    if len(set(body.lower())) < _FEWEST_CHARACTERS or is_filler(body):
        return False
    return (not is_dotted and _DIGIT_OR_CAPITAL.search(body) is not None) or is_random(body)


def _start_of_unknown(text: str, start: int, end: int) -> int | None:
    """Start of a token whose issuer is in no table: ``acme_pat_`` and an unbroken random run. None if it is no token.

    Args:
        text: the string.
        start: index of the letter or digit before a sign and a run of letters and digits.
        end: index at which the run ends.
    """
    run = text[start + 2 : end]
    is_digest = is_hex(run)
    if not is_digest and not (is_random(run) and _is_mixed(run)):
        return None
    prefix = _PREFIX_BEFORE.search(text[max(0, start - _LONGEST_PREFIX) : start + 1])
    parts = words_of(prefix[0]) if prefix else []
    if not parts or not _NO_ISSUERS.isdisjoint(parts):
        return None
    if is_digest:
        is_token = len(run) >= _HEX_RUN and not _WORDS_OF_HEX.isdisjoint(parts)
    else:
        is_token = len(run) >= _LONG_RUN or not _WORDS_OF_SECRETS.isdisjoint(parts)
    return start + 1 - len(prefix[0]) if is_token else None  # type: ignore[index]


def _is_mixed(run: str) -> bool:
    """Whether a run has both letters and digits, or capitals in the middle: a long word has neither."""
    return not run.isalpha() or not (run.islower() or run.isupper() or run.istitle())


def is_key_mask(value: str) -> bool:
    """Whether a value is the mask of a key and begins with the prefix of its issuer: ``ghp_***``."""
    shown = value[:-3]
    return value.endswith("***") and (shown in _STARTS or shown[:3] in _SHORT_PREFIXES)


SHAPE = Detector("api_key", "|".join(part for _, part in _SHAPES), _find_shapes, mask_start)
PREFIX = prefix_detector()
UNKNOWN = Detector("api_key", _RUN, _find_unknown, mask_start)
