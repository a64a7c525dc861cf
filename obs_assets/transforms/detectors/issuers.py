"""Keys and tokens known by their shape: `issuers.txt`, `shapes.txt`, and a rule for issuers that are in neither."""

import re
from collections.abc import Iterator
from typing import Any

import re2

from obs_assets.transforms.detectors.base import EDGE, Detector, Span, rows
from obs_assets.transforms.detectors.encodings import SURROGATE
from obs_assets.transforms.detectors.masks import SHOWN, mask_start
from obs_assets.transforms.detectors.names import words, words_of
from obs_assets.transforms.detectors.randomness import is_hex, is_random

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
"""Characters behind a prefix that RE2 looks for: the same for all, since a count of its own for each makes the
automaton large. Alphabet and length are checked where it finds something."""


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
_LONG_RUN, _SHORT_RUN = 30, 20
_RUN = rf"[0-9A-Za-z][_.-][0-9A-Za-z]{{{_SHORT_RUN},}}"
_RUN_ONLY = re.compile(_RUN)
_PREFIX_BEFORE = re.compile(
    r"(?:(?<=[^0-9A-Za-z])|\A)[A-Za-z][0-9A-Za-z]{0,15}(?:[_.-][0-9A-Za-z]{1,12}){0,3}\Z"
)
_LONGEST_PREFIX = 60
_SHAPE_OF_ANY = "|".join(shape for shape, _ in _SHAPES)
_SHAPE = re.compile(_SHAPE_OF_ANY)
_OWN_LEAST = 16
_FEWEST_CHARACTERS = 4
"""Different ones in a token: fewer are a placeholder, ``ghp_xxxxxxxx``."""

_DIGIT_OR_CAPITAL = re.compile("[0-9A-Z]")


def key_detector(own_prefixes: tuple[str, ...] = ()) -> Detector:
    """The detector for keys of known and unknown issuers.

    Args:
        own_prefixes: of the user's own tokens; 16 letters, digits, ``_`` or ``-`` behind one make a token.
    """
    prefixes = {**_PREFIXES, **dict.fromkeys(own_prefixes, (_OWN_LEAST, _ALPHABETS["word"]))}
    tails = {
        prefix: re.compile(f"[{alphabet}]{{{least},}}")
        for prefix, (least, alphabet) in prefixes.items()
    }
    lengths = sorted({len(prefix) for prefix in prefixes}, reverse=True)
    starts = f"(?:{'|'.join(map(re2.escape, sorted(prefixes)))}){_TAIL}{{{_ENOUGH}}}"
    engine = _compiled(
        rf"(?:^|[^0-9A-Za-z])(?:{_SHAPE_OF_ANY}|{starts}{_TAIL}*)|{_RUN}"
    )  # a group would cost much

    def known(text: str, start: int) -> int | None:
        for length in lengths:
            tail = tails.get(text[start : start + length])
            match = tail.match(text, start + length) if tail else None
            if match and _looks_random(match[0], is_dotted="." in match.re.pattern):
                return match.end()
        shape = _SHAPE.match(text, start)
        return shape.end() if shape else None

    def find(text: str, _key: str) -> Iterator[Span]:
        for match in engine.finditer(text if text.isascii() else SURROGATE.sub("\ufffd", text)):
            start, end = match.span()
            if _RUN_ONLY.fullmatch(text, start, end):
                start = _start_of_unknown(text, start, end)
                known_end = None if start is None else end
            else:
                start += not text[start].isalnum()
                known_end = known(text, start)
            if known_end and not text[known_end : known_end + 1].isalnum():
                yield start, start + len(text[start:known_end].rstrip(".-~"))

    parts = "|".join(part for _, part in _SHAPES)
    trigger = f"{EDGE}(?:{starts})|{parts}|[0-9A-Za-z][_.-][0-9A-Za-z]{{{_SHORT_RUN}}}"
    return Detector("api_key", trigger, find, mask_start)


def _looks_random(body: str, *, is_dotted: bool) -> bool:
    """Whether what follows a prefix is no text in words, such as ``learn-compatible-estimator``."""
    if len(set(body.lower())) < _FEWEST_CHARACTERS:
        return False
    return (not is_dotted and _DIGIT_OR_CAPITAL.search(body) is not None) or is_random(body)


def _start_of_unknown(text: str, start: int, end: int) -> int | None:
    """Where the token of an issuer that no table has begins: ``acme_pat_`` and one unbroken random run.

    Args:
        text: in which a run of letters and digits, a sign and one letter before it, stands from start to end.
    """
    run = text[start + 2 : end]
    if is_hex(run) or not is_random(run) or not _is_mixed(run):
        return None
    prefix = _PREFIX_BEFORE.search(text[max(0, start - _LONGEST_PREFIX) : start + 1])
    parts = words_of(prefix[0]) if prefix else []
    if not parts or not _NO_ISSUERS.isdisjoint(parts):
        return None
    is_token = len(run) >= _LONG_RUN or not _WORDS_OF_SECRETS.isdisjoint(parts)
    return start + 1 - len(prefix[0]) if is_token else None  # type: ignore[index]


def _is_mixed(run: str) -> bool:
    """Letters and digits, or capitals in the middle: a long word has neither."""
    return not run.isalpha() or not (run.islower() or run.isupper() or run.istitle())


def is_key_mask(value: str) -> bool:
    """Whether a value is how a key's mask begins with its issuer: ``ghp_***``."""
    shown = value[:-3]
    return value.endswith("***") and (shown in _STARTS or shown[:3] in _SHORT_PREFIXES)


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = 64 << 20
    options.log_errors = False
    return re2.compile(pattern, options)


KEY = key_detector()
