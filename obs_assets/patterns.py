"""Regular expressions of users, which RE2 and DuckDB must both accept. RE2 matches in linear time."""

import re
from typing import Annotated

import re2
from pydantic import AfterValidator


def _compiled(pattern: str) -> str:
    """The pattern, with a closed quotation.

    Raises:
        ValueError: RE2 or DuckDB does not accept the pattern.
    """
    if not pattern:
        raise ValueError("an empty pattern is found in every event")
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(
            f"RE2 does not take the pattern {pattern!r}: {_reason(error)}; "
            "it has no look-around and no back-references"
        ) from None
    # This RE2 accepts `(?<name>…)`, DuckDB's RE2 does not.
    if re.search(r"(?<!\\)\(\?<", pattern):
        raise ValueError(
            f"in the pattern {pattern!r}, write the named group as (?P<name>…) or as (…)"
        )
    return _closed(pattern, options)


def _closed(pattern: str, options: "re2.Options") -> str:
    r"""The pattern. A quotation without an end, ``\Qa.b``, gets its end: other patterns are appended to it."""
    closed = rf"{pattern}\E"
    try:
        re2.compile(closed, options)
    except re2.error:
        return pattern
    return closed


def _reason(error: re2.error) -> str:
    reason = error.args[0]
    if isinstance(reason, bytes):
        return reason.decode(errors="replace")
    return str(reason)


Pattern = Annotated[str, AfterValidator(_compiled)]
"""A regular expression in RE2's syntax, case-insensitive."""
