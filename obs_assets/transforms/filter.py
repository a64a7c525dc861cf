"""Filtering: drops events by rule. `obs_assets.transforms.sample` drops by rate.

Every event stays in the frame: the column ``dropped_by`` says whether it is dropped, so that a stage can
count before it writes.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Literal

import duckdb
from pydantic import Field, computed_field, model_validator

from obs_assets.config import Block
from obs_assets.events import (
    ALIASES,
    LINEAGE,
    MESSAGES,
    PROMOTED,
    TIME_FIELDS,
    Frame,
    one_of,
    quote,
)
from obs_assets.patterns import Pattern
from obs_assets.severities import ERROR_STATUSES, LOW, NOTEWORTHY, level_of
from obs_assets.transforms.functions import DottedPath, digest, kept_by

LOW_VALUE_TYPES = ("heartbeat", "health_check", "ping", "pong", "keepalive", "status", "info")
"""Event types of low value, in lower case."""

ENRICHED_KEYS = ("hostname", "platform", "arch", "environment", "python_version", "process_id")
"""Keys that enrichment adds to every event. They do not count as content."""

_ABOUT = (
    "event_id",
    "event_level",
    "source_name",
    "master_type",
    "worker_type",
    "worker_id",
    "trace_id",
    "session_id",
)
"""Promoted columns that describe the origin of an event, not its content."""

NO_CONTENT = (
    *[field for field in TIME_FIELDS if "." not in field],
    *itertools.chain.from_iterable(ALIASES[name] for name in _ABOUT),
    *ENRICHED_KEYS,
    "host",
    "pid",
    "logger",
    "thread",
    "version",
    *("_context", "_enrichment", "_redaction", "_sampling", "_source", "_destination", "_obs"),
    *("_index", "_score", "_type", "_routing", "_version"),
)
"""Keys whose text gives the time, the origin or the severity of an event. They do not count as content."""

EMPTY_KEYS = 5
"""Largest number of own keys of an empty event."""


class FilterConfig(Block, frozen=True):
    """Which events are dropped by rule. A keep rule wins over every drop rule.

    Patterns are searched for in each text value of the event, at any depth: in the string as it reads, without quotes
    and escapes; ``^`` and ``$`` are the ends of a string. Keys and numbers are not searched. ``patterns_in: json``
    searches the JSON text of the event instead, keys included.

    Attributes:
        drop_patterns: drop events in which one of these patterns (RE2 syntax) is found.
        keep_patterns: keep events in which one of these patterns (RE2 syntax) is found.
        patterns_in: ``text``: search each string value; ``json``: search the JSON text, where keys
            are found too and a line break is a backslash and an ``n``.
        drop_levels: drop events of these levels, in lower case; ``warn`` is ``warning``.
        drop_event_types: drop events of these types, compared exactly.
        keep_event_types: keep events of these types, compared exactly.
        drop_low_value: drop events of low value: types such as ``heartbeat`` and ``health_check``,
            levels ``debug`` and ``trace``, events without content. docs/transforms.md has the rule.
        custom_filter: dotted path of a function of yours, ``pandas.DataFrame -> pandas.Series`` of
            booleans; false drops the event.
        filter_mode: ``allowlist`` drops every event that no keep rule names.
    """

    drop_patterns: tuple[Pattern, ...] = Field((), examples=[["GET /healthz"]])
    keep_patterns: tuple[Pattern, ...] = Field((), examples=[["payment"]])
    patterns_in: Literal["text", "json"] = "text"
    drop_levels: tuple[str, ...] = Field((), examples=[["debug", "trace"]])
    drop_event_types: tuple[str, ...] = Field((), examples=[["cache_hit"]])
    keep_event_types: tuple[str, ...] = Field((), examples=[["deployment"]])
    drop_low_value: bool = True
    custom_filter: DottedPath | None = Field(None, examples=["my_package.filters.keep"])
    filter_mode: Literal["blocklist", "allowlist"] = "blocklist"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def custom_filter_digest(self) -> str | None:
        """Hash of the function's source: changed source is a changed configuration."""
        return digest(self.custom_filter)

    @model_validator(mode="after")
    def _allowlist_names_events(self) -> "FilterConfig":
        keeps = self.keep_patterns or self.keep_event_types
        if self.filter_mode == "allowlist" and not keeps:
            raise ValueError(
                "filter_mode: allowlist without keep_event_types or keep_patterns drops every "
                "event: name the events to keep"
            )
        return self


def apply_filter(
    connection: duckdb.DuckDBPyConnection, frame: Frame, config: FilterConfig | None
) -> Frame:
    """Decide for every event whether it is dropped, and by which rule.

    Keep rules win. Then the first of these rules decides:

    =======================  ===============================================================================
    ``filtered:custom``      ``custom_filter`` returns false
    ``filtered:pattern``     one of ``drop_patterns`` is found
    ``filtered:level``       ``event_level`` is one of ``drop_levels``; an event without a level has none
    ``filtered:type``        ``event_type`` is one of ``drop_event_types``
    ``filtered:low_value``   the event is of low value
    ``filtered:not_allowed`` the mode is ``allowlist``
    =======================  ===============================================================================

    An event is of low value if its type, in lower case, is one of `LOW_VALUE_TYPES`, if its level is one of
    `severities.LOW`, or if it is empty. An event with an ``error``, a status of `severities.ERROR_STATUSES`, or
    a level of `severities.NOTEWORTHY`, is never of low value.

    An event is empty if all of this holds:

    - It has no type. An event of type `zombie_detected` says something even without other fields.
    - Each of `MESSAGES` is missing, null or an empty string.
    - No other key holds a text, an object or a list; keys of `NO_CONTENT` are not counted.
    - It has at most `EMPTY_KEYS` keys; keys that begin with ``_`` and `ENRICHED_KEYS` are not counted.

    Args:
        connection: the frame's own.
        frame: lineage, promoted columns and ``event``. ``event`` is read only for patterns, and for events
            that can be empty.
        config: None, or a disabled configuration, drops no event.

    Returns:
        Lineage, promoted and other columns, ``dropped_by`` (VARCHAR, NULL: kept), ``event``; same rows, same order.
        Where ``dropped_by`` was given it stays.
    """
    known = {*LINEAGE, *PROMOTED, "dropped_by", "event"}
    carried = [name for name in frame.columns if name not in known]
    branches: list[str] = []
    if "dropped_by" in frame.columns:
        branches.append("WHEN dropped_by IS NOT NULL THEN dropped_by")
    if config and config.enabled:
        branches += _rules(connection, config)
    verdict = "NULL::VARCHAR"
    if branches:
        verdict = f"CASE {' '.join(branches)} ELSE NULL END::VARCHAR"
    columns = [*LINEAGE, *PROMOTED, *carried, f"{verdict} AS dropped_by", "event"]
    return frame.project(", ".join(columns))


def _rules(connection: duckdb.DuckDBPyConnection, config: FilterConfig) -> Iterator[str]:
    """Branches of a CASE, in order. A condition that is NULL does not hold."""
    if config.keep_event_types:
        yield f"WHEN {one_of('event_type', config.keep_event_types)} THEN NULL"
    if config.keep_patterns:
        yield f"WHEN {_found(config.keep_patterns, config.patterns_in)} THEN NULL"
    if config.custom_filter:
        yield f"WHEN NOT {kept_by(connection, config.custom_filter)} THEN 'filtered:custom'"
    if config.drop_patterns:
        yield f"WHEN {_found(config.drop_patterns, config.patterns_in)} THEN 'filtered:pattern'"
    if config.drop_levels:
        levels = map(_level, config.drop_levels)
        yield f"WHEN {one_of('event_level', levels)} THEN 'filtered:level'"
    if config.drop_event_types:
        yield f"WHEN {one_of('event_type', config.drop_event_types)} THEN 'filtered:type'"
    if config.drop_low_value:
        yield f"WHEN {_LOW_VALUE} THEN 'filtered:low_value'"
    if config.filter_mode == "allowlist":
        yield "WHEN true THEN 'filtered:not_allowed'"


def _level(name: str) -> str:
    """A level as ``event_level`` writes it."""
    return level_of(name) or ""


def _found(patterns: tuple[str, ...], where: Literal["text", "json"]) -> str:
    """SQL: whether any of the patterns is found in an event, see `FilterConfig.patterns_in`."""
    # A single pattern for all, so that the event is scanned once.
    any_of = quote("|".join(f"(?:{pattern})" for pattern in patterns))
    in_json = f"regexp_matches(event, {any_of}, 'i')"
    if where == "json":
        return in_json
    in_text = (
        f"len(list_filter({_TEXTS}, lambda text: regexp_matches(text, {any_of}, 'i'))) > 0"
    )
    if any(_SEES_AROUND.search(pattern) for pattern in patterns):
        return in_text
    # A pattern that is found in a string without escapes is also found in the JSON around it. So for nearly
    # all events the scan of the JSON is enough.
    return f"CASE WHEN {in_json} OR contains(event, '\\') THEN {in_text} ELSE false END"


_SEES_AROUND = re.compile(r"[\^$]|\\[AbBz]")
"""A part of a pattern that can match at the end of a string, and nowhere in the JSON."""

# A quote in JSON opens or closes a string, and a string before a colon is a key.
_STRINGS = r"""regexp_extract_all(event, '"(?:[^"\\]|\\.)*"(?:\s*:)?')"""

_TEXTS = f"""list_transform(list_filter({_STRINGS}, lambda string: NOT ends_with(string, ':')), lambda string:
    CASE WHEN contains(string, '\\') THEN json_extract_string(string, '$') ELSE string[2:-2] END)"""

_GRAVE = (
    f"(error IS NOT NULL OR {one_of('event_level', NOTEWORTHY)} "
    f"OR {one_of('lower(status)', ERROR_STATUSES)})"
)

# The greatest of the texts is empty only if all of them are.
_MESSAGE_PATHS = [f'$."{key}"' for key in MESSAGES]
_SAYS_NOTHING = f"coalesce(list_max(json_extract_string(event, {_MESSAGE_PATHS})), '') = ''"

_OWN_KEYS = f"""
list_filter(json_keys(event), lambda key:
    NOT starts_with(key, '_') AND NOT {one_of("key", ENRICHED_KEYS)})"""

# A text, an object or a list with content is longer than its two quotes or brackets.
_OWN_TEXTS = f"""list_filter(list_zip(json_keys(event), json_extract(event, '$.*')), lambda pair:
    NOT {one_of("pair[1]", NO_CONTENT)}
    AND contains('"{{[', (pair[2]::VARCHAR)[1]) AND strlen(pair[2]::VARCHAR) > 2)"""

# CASE and AND save work: the keys are counted only in events without a message, and the texts only in events
# with few keys.
_EMPTY = f"""CASE WHEN {_SAYS_NOTHING}
    THEN len({_OWN_KEYS}) <= {EMPTY_KEYS} AND len({_OWN_TEXTS}) = 0 END"""

_LOW_VALUE = f"""CASE
    WHEN {_GRAVE} THEN false
    WHEN {one_of("lower(event_type)", LOW_VALUE_TYPES)} OR {one_of("event_level", LOW)} THEN true
    WHEN event_type IS NOT NULL THEN false
    ELSE {_EMPTY} END"""
