"""Patterns of `re` in the package: none is written in a way that some supported Python matches wrongly."""

import ast
import random
import re
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import regex

import obs_assets
from obs_assets.transforms.redact import RedactConfig, redact_texts, walk

ROOT = Path(obs_assets.__file__).parent

USES_REGEX = {"audit/leftovers.py"}
"""Files whose patterns are compiled by the module `regex`, which is right on every Python."""

HARMLESS = r"\(\?:\\{2}\.\[\^[^]]*\]\*\+\)[*+]\+"
"""What follows a backslash in a string, ``(?:\\\\.[^"]*+)*+``: behind the backslash nothing in it can fail."""

PIECES = [
    *(
        '"a"',
        '"a\\"b"',
        '""',
        '"\\\\"',
        '"',
        ":",
        ",",
        " ",
        "[",
        "]",
        "{",
        "}",
        "1",
        "-2.5e3",
        "true",
        "null",
        "\\",
        "x",
    ),
    *('"k":', '"k": "v",', '"k":[1,"2"],', '"q":{"a":1,"b":"c"},', '"é":"\\u00e9",', ","),
]

UNITS = [
    '"',
    '\\"',
    "\\\\",
    "[",
    "{",
    '{"a":',
    "[1,",
    "1",
    "1.",
    "-",
    ",",
    " ",
    '"a":1,',
    '"a":[1,1],',
    "true ",
]


def literals(source: str) -> Iterator[str]:
    """The string literals of a file; a closing bracket stands for each value in an f-string."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else ")"
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            yield node.value.decode("latin-1")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def possessive_groups(source: str) -> list[str]:
    """String literals in which a group is repeated possessively, such as ``(?:…)*+``, except for `HARMLESS`."""
    others = [re.sub(HARMLESS, "", text) for text in literals(source)]
    return [text for text in others if re.search(r"\)(?:[*+?]|\{\d*,?\d*\})\+", text)]


def test_no_pattern_repeats_a_group_possessively() -> None:
    """`re` of CPython 3.11.0 to 3.11.4 matches ``(?:ab?c)*+`` in "a"; ``(?>(?:ab?c)*)`` is right in all of them."""
    files = {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("*.py")}
    found = {name for name, path in files.items() if possessive_groups(path.read_text("utf-8"))}
    assert "transforms/redact/walk.py" in files
    assert found <= USES_REGEX
    assert possessive_groups('re.compile(rb"x(?:ab?c)*+")')
    assert possessive_groups('re.compile(rf"{STRING}{{1,3}}+")')


@pytest.mark.parametrize("name", ["_TOKEN", "_MEMBERS", "_STRINGS"])
def test_the_walk_s_patterns_match_as_another_engine_does(name: str) -> None:
    """In 5,000 texts of broken and sound JSON, this Python's `re` finds the same as the module `regex`."""
    ours: re.Pattern[str] = getattr(walk, name)
    others = regex.compile(ours.pattern)
    rng = random.Random(15)
    for _ in range(5_000):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 25)))
        begin, end = rng.randint(0, 3), len(text) - rng.randint(0, 3)
        mine, other = ours.match(text, begin, end), others.match(text, begin, end)
        assert (mine and (mine.span(), mine.groups())) == (
            other and (other.span(), other.groups())
        ), text


@pytest.mark.slow
@pytest.mark.parametrize(
    "around", ["%s", '"a":[%s', '"a":{"b":%s', '"a":"%s', '"a":"%s",', '"a":{%s', '"a":{%s},']
)
def test_broken_json_takes_linear_time(around: str) -> None:
    """64 KB of anything repeated, wherever the event breaks off before it ends, take less than half a second."""
    next(redact_texts(['{"a":"bob@example.com"}'], RedactConfig()))  # compiles the rules
    for unit in UNITS:
        event = "{" + around % (unit * (65_536 // len(unit))) + ' bob@example.com"}'
        begin = time.thread_time()
        next(redact_texts([event], RedactConfig()))
        assert time.thread_time() - begin < 0.5, unit


def test_many_members_take_little_memory() -> None:
    """Two million members, which `re` must not keep a state for each of: that were 144 MB."""
    text = '"k":1,' * 2_000_000 + '"k":1'
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    passed = walk._MEMBERS.match(text)
    assert passed
    assert passed.end() == len(text) - len(',"k":1')
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kilobytes
