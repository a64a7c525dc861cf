"""Secrets in rows: the name is in a list of columns, the value at its position in a row. SQL and CSV are such texts."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import Detector, Span, merged
from obs_assets.transforms.detectors.masks import is_redacted, mask_all, may_be_masked
from obs_assets.transforms.detectors.names import Meaning, judge
from obs_assets.transforms.detectors.values import is_secret

_TRIGGER = r"(?i:insert|replace|merge)(?:\s|\\[nrt])+(?i:ignore(?:\s|\\[nrt])+)?(?i:into)"
_INTO = re.compile(
    r"(?i)(?<!\w)(?:insert|replace|merge)\s{1,8}(?:ignore\s{1,8})?into\s{1,8}[^\s(]{1,128}\s{0,8}"
    r"\((?P<columns>[^()]{1,4000})\)\s{0,8}values?\s{0,8}(?=\()"
)
_VALUE = re.compile(
    r"\s{0,8}(?:[A-Za-z]?'(?P<text>(?:[^'\\]|''|\\.){0,4096})'"
    r"|(?:[^,()'\n]|\([^()\n]{0,200}\)){0,200})[^,()'\n]{0,40}(?P<sign>[,)])",
    re.DOTALL,
)
_NEXT_ROW = re.compile(r"\s{0,8},?\s{0,8}\(")


def _find_in_statements(text: str, _key: str) -> Iterator[Span]:
    """Texts in the columns of secrets: ``INSERT INTO users (name, password) VALUES ('ann', 'X')`` gives ``X``."""
    for into in _INTO.finditer(text):
        meanings = [
            judge(column.strip("\"'`[] \r\n\t")) for column in into["columns"].split(",")
        ]
        if not (Meaning.PASSWORD in meanings or Meaning.SECRET in meanings):
            continue
        row = _NEXT_ROW.match(text, into.end())
        while row:
            end = row.end()
            for meaning in meanings:
                value = _VALUE.match(text, end)
                if value is None:
                    return
                end = value.end()
                if meaning and _is_secret_text(meaning, value["text"]):
                    yield value.span("text")
                if value["sign"] == ")":
                    break
            row = _NEXT_ROW.match(text, end)


def _is_secret_text(meaning: Meaning, text: str | None) -> bool:
    """Whether a text in such a column is a secret. NULL, numbers, functions and parameters are no texts."""
    if not text:
        return False
    is_left = is_redacted(text) if meaning is Meaning.PASSWORD else may_be_masked(text)
    return not is_left and is_secret(meaning, text, is_quoted=True, is_prose=False)


_HEADER = re.compile(
    r"^[ \t]{0,8}(?P<names>[\"']?[A-Za-z][\w .-]{0,60}[\"']?(?P<sign>[,;|\t])"
    r"(?:[\"']?[A-Za-z][\w .-]{0,60}[\"']?(?P=sign)){0,60}[\"']?[A-Za-z][\w .-]{0,60}[\"']?)[ \t]{0,8}\r?\n",
    re.MULTILINE,
)
"""A line of names with the same sign between them: ``user,password,role``."""

_HEADER_TRIGGER = (
    r"(?i:passw|pwd|token|secret|api[-_ ]?key|credential|private[-_ ]?key)[\w -]*[\"'\\]*"
    r"(?:(?:[,;|]|\\t|\t)[\w .\"'\\-]*)*(?:\\r|\r)?(?:\\n|\n)"
)


def _find_in_tables(text: str, _key: str) -> Iterator[Span]:
    """Texts in the columns of secrets of CSV: ``user,password`` and ``ann,X`` in the next line gives ``X``."""
    for header in _HEADER.finditer(text):
        sign = header["sign"]
        meanings = [judge(name.strip("\"' ")) for name in header["names"].split(sign)]
        if Meaning.PASSWORD not in meanings and Meaning.SECRET not in meanings:
            continue
        start = header.end()
        for line in text[start:].split("\n"):
            cells = line.split(sign)
            if len(cells) != len(meanings):
                break
            yield from _secret_cells(cells, meanings, start)
            start += len(line) + 1


def _secret_cells(
    cells: list[str], meanings: list[Meaning | None], start: int
) -> Iterator[Span]:
    """The spans of the secrets in the cells of a line that begins at ``start``."""
    for cell, meaning in zip(cells, meanings, strict=True):
        value = cell.strip().strip("\"'")
        if meaning and _is_secret_text(meaning, value):
            begin = start + cell.index(value)
            yield begin, begin + len(value)
        start += len(cell) + 1


def _find_in_rows(text: str, key: str) -> Iterator[Span]:
    """Secrets in statements and tables."""
    return merged((*_find_in_statements(text, key), *_find_in_tables(text, key)))


STATEMENT = Detector("password", f"{_TRIGGER}|{_HEADER_TRIGGER}", _find_in_rows, mask_all)
