"""Regular expressions of users: those that RE2, which needs linear time, and DuckDB both take."""

import re
from typing import Annotated

import re2
from pydantic import AfterValidator


def _compiled(pattern: str) -> str:
    """The pattern, if RE2 takes it."""
    if not pattern:
        raise ValueError("an empty pattern is found in every event")
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(
            f"RE2 does not take the pattern {pattern!r}: {_reason(error)}; it has no look-around and no back-references"
        ) from None
    # The one thing that this RE2 takes and DuckDB's does not.
    if re.search(r"(?<!\\)\(\?<", pattern):
        raise ValueError(
            f"in the pattern {pattern!r}, write the named group as (?P<name>…) or as (…)"
        )
    return _closed(pattern, options)


def _closed(pattern: str, options: "re2.Options") -> str:
    """The pattern; a quotation in it that goes on to its end is closed, since other patterns are to follow it."""
    try:
        re2.compile(closed := rf"{pattern}\E", options)
    except re2.error:
        return pattern
    return closed


def _reason(error: re2.error) -> str:
    reason = error.args[0]
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)


Pattern = Annotated[str, AfterValidator(_compiled)]
"""A regular expression in RE2's syntax, case-insensitive."""
