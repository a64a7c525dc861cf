"""Patterns of Python's `re` in the redactor: none takes time that grows faster than its text."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from obs_assets.transforms import detectors, redact

ON_BOUNDED_TEXT = {
    "custom._ASSERTION": "a user's pattern, read at load",
    "emails._RETURN_PATH": "a local part of 256 characters",
    "emails._NO_PERSON": "an address: a local part of 256 characters, a domain of 1,344",
    "encodings._HEX_RUN": "each run of digits has one place to begin",
    "encodings._BASE64_RUN": "nothing behind the run can fail",
    "encodings._BASE64_PART": "nothing behind the run can fail",
    "ips._PRODUCT_BEFORE": "each word has one place to begin",
    "masks._MASKED": "from the beginning of a value only",
    "names._WORD": "a name of 120 characters",
    "randomness._HEX": "from the beginning of a value only",
    "values._PLACEHOLDER": "a value of 4,096 characters, from its beginning only",
    "values._TOKEN": "from the beginning of a value only",
    "values._WORD": "from the beginning of a value only",
    "walk._DOCUMENT": "from the beginning of a string only",
}
"""Pattern → the bound of its text, or the reason why it gives nothing back."""

_UNBOUNDED = re._parser.MAXREPEAT  # type: ignore[attr-defined]
_GREEDY = ("MAX_REPEAT", "MIN_REPEAT")


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Every compiled pattern of the redactor's modules, with the name that it has there."""
    for package in (detectors, redact):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            for name, value in vars(importlib.import_module(module.name)).items():
                place = f"{module.name.rpartition('.')[2]}.{name}"
                yield from ((place, one) for one in compiled_in(value))


def compiled_in(value: Any) -> Iterator[re.Pattern[str]]:
    """The patterns that a module's name holds, also in a list or a dictionary."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        yield from (one for one in value.values() if isinstance(one, re.Pattern))
    elif isinstance(value, list | tuple):
        yield from (one for one in value if isinstance(one, re.Pattern))


def gives_back(tree: Any, *, is_last: bool = True) -> bool:
    """Whether a repetition without a limit may give characters back: something that can fail follows it."""
    steps = list(tree)
    for position, (operation, argument) in enumerate(steps):
        is_end = is_last and position == len(steps) - 1
        name = str(operation)
        if name in _GREEDY:
            _least, most, inner = argument
            if most == _UNBOUNDED and not is_end:
                return True
            if gives_back(inner, is_last=is_end and most == 1):
                return True
        branches = _BRANCHES.get(name, lambda _: [])(argument)
        if any(gives_back(branch, is_last=is_end) for branch in branches):
            return True
    return False


_BRANCHES: dict[str, Callable[[Any], list[Any]]] = {
    "SUBPATTERN": lambda argument: [argument[3]],
    "BRANCH": lambda argument: argument[1],
}
"""Step of a pattern → the patterns in it."""


@pytest.mark.parametrize(("place", "pattern"), list(patterns()))
def test_a_pattern_is_bounded(place: str, pattern: re.Pattern[str]) -> None:
    """No repetition without a limit gives characters back, so that time grows no faster than the text."""
    tree = re._parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)  # type: ignore[attr-defined]
    assert gives_back(tree) == (place in ON_BOUNDED_TEXT), (
        f"{place}: a limit or a line of the table"
    )


@pytest.mark.parametrize("pattern", ["(?:a+)+b", "a*b", "x(?:a|b+)c", "a+?b"])
def test_an_unbounded_pattern_is_seen(pattern: str) -> None:
    """The judge itself: repetitions without a limit before something that can fail."""
    assert gives_back(re._parser.parse(pattern))  # type: ignore[attr-defined]
    bounded = pattern.replace("+", "{1,9}").replace("*", "{0,9}")
    assert not gives_back(re._parser.parse(bounded))  # type: ignore[attr-defined]
