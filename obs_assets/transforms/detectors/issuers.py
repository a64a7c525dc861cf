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
_PREFIX_BEFORE = re.compile(
    r"(?:(?<=[^0-9A-Za-z])|\A)[A-Za-z][0-9A-Za-z]{0,15}(?:[_.-][0-9A-Za-z]{1,12}){0,3}\Z"
)
_LONGEST_PREFIX = 60
_OWN_LEAST = 16
_FEWEST_CHARACTERS = 4
"""Different ones in a token: fewer are a placeholder, ``ghp_xxxxxxxx``."""

_DIGIT_OR_CAPITAL = re.compile("[0-9A-Z]")


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = 64 << 20
    options.log_errors = False
    return re2.compile(pattern, options)


def prefix_detector(own_prefixes: tuple[str, ...] = ()) -> Detector:
    """The detector for keys that begin as an issuer's keys do.

    Args:
        own_prefixes: of the user's own tokens; 16 letters, digits, ``_`` or ``-`` behind one make a token.
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
            if start < done:
                continue
            for length in lengths:
                tail = tails.get(text[start : start + length])
                body = tail.match(text, start + length) if tail else None
                if body is None:
                    continue
                done = max(done, body.end())
                if _is_end(text, body.end()) and _looks_random(body):
                    yield _trimmed(text, start, body.end())
                    break
            else:
                if end := _end_of_other(text, match.end()):
                    done = max(done, end)
                    yield _trimmed(text, start, end)

    return Detector("api_key", f"{EDGE}{any_prefix}{_TAIL}{{{_ENOUGH}}}", find, mask_start)


_FEWEST_OF_OTHER = 8
"""Different characters in 20 random ones: fewer are a placeholder."""

_OTHER_TAIL = re.compile(r"[0-9A-Za-z_-]{20,}")


def _end_of_other(text: str, start: int) -> int | None:
    """Where a token ends that has its issuer's prefix and another form behind it: issuers change their forms.

    Args:
        text: with a prefix that ends at start.
        start: only behind a sign, and only for a random run of 20 characters.
    """
    tail = _OTHER_TAIL.match(text, start) if text[start - 1] in "_-." else None
    if tail is None or is_hex(tail[0]) or len(set(tail[0].lower())) < _FEWEST_OF_OTHER:
        return None
    if not is_random(tail[0]) or not _is_mixed(tail[0]):
        return None
    return tail.end() if _is_end(text, tail.end()) else None


_SHAPE = _compiled(f"(?:^|[^0-9A-Za-z])(?:{'|'.join(shape for shape, _ in _SHAPES)})")


def _find_shapes(text: str, _key: str) -> Iterator[Span]:
    """Tokens of a shape that stand alone."""
    for match in _found(_SHAPE, text):
        start, end = match.span()
        if _is_end(text, end):
            yield _trimmed(text, start + (not text[start].isalnum()), end)


_RUN = rf"[0-9A-Za-z][_.-][0-9A-Za-z]{{{_SHORT_RUN}}}"
_WHOLE_RUN = _compiled(f"{_RUN}[0-9A-Za-z]*")


def _find_unknown(text: str, _key: str) -> Iterator[Span]:
    """Tokens of issuers that no table has: ``acme_pat_`` and one unbroken random run."""
    for match in _found(_WHOLE_RUN, text):
        start = _start_of_unknown(text, *match.span())
        if start is not None and _is_end(text, match.end()):
            yield start, match.end()


def _found(engine: Any, text: str) -> Iterator[Any]:
    """The matches of RE2 in a string, which may have half characters."""
    yield from engine.finditer(text if text.isascii() else SURROGATE.sub("\ufffd", text))


def _is_end(text: str, end: int) -> bool:
    """Whether no letter or digit follows a token that ends here."""
    return not text[end : end + 1].isalnum()


def _trimmed(text: str, start: int, end: int) -> Span:
    """A token without the signs at its end, which belong to the sentence."""
    return start, start + len(text[start:end].rstrip(".-~"))


def _looks_random(match: re.Match[str]) -> bool:
    """Whether what follows a prefix is no text in words, such as ``learn-compatible-estimator``."""
    body, is_dotted = match[0], "." in match.re.pattern
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


SHAPE = Detector("api_key", "|".join(part for _, part in _SHAPES), _find_shapes, mask_start)
PREFIX = prefix_detector()
UNKNOWN = Detector("api_key", _RUN, _find_unknown, mask_start)
