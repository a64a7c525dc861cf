"""Nothing personal and no secret beyond this step: ``enriched_events`` become ``redacted_events``.

The rules are in `obs_assets.transforms.detectors`; here is how they reach every string, number and key of an event at
the speed of a database:

1. DuckDB looks at the raw text of each event for any trigger. Without one the event passes as the bytes it is.
2. Python finds the triggers in the others (`redactor`): nine in ten lie in strings that can be told without parsing
   (`in_place`), for the rest a walk keeps track of where it is (`walk`).
3. The strings of some thousand events are judged by the exact rules, one rule after the other (`rules`); the outcome
   is remembered, since values repeat.
4. The new literals are spliced into the text. Everything else keeps its bytes, numbers keep their digits. What was
   done is told in the event (`mark`).

`redact_text` walks to every member of an event instead, trigger or not, and never edits in place: for single events,
and the slow truth that the fast way is tested against.

An event on which the redactor fails is set aside as a dead letter, without a word of it in any message.
"""

import gc
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import duckdb.func

from obs_assets.errors import PermanentError
from obs_assets.events import Frame, counts_by, quote, with_columns
from obs_assets.transforms.redact.config import CustomPattern, RedactConfig
from obs_assets.transforms.redact.in_place import UNCHANGED, Outcome
from obs_assets.transforms.redact.redactor import Redactor, redactor_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = [
    "REDACTOR_FAILED",
    "CustomPattern",
    "RedactConfig",
    "redact",
    "redact_text",
    "redact_texts",
    "redacted_by_type",
]

REDACTOR_FAILED = "redactor_failed"
"""Why a row is dropped: the redactor raised on it."""


def redact(
    connection: "duckdb.DuckDBPyConnection", frame: Frame, config: RedactConfig, hash_key: bytes | None = None
) -> Frame:
    """Redact every event of a frame.

    Args:
        connection: the frame's own.
        frame: lineage, promoted columns and ``event``, the text of one JSON object on one line.
        config: what, where and how.
        hash_key: the key of ``hash`` tokens: who has it can test guesses.

    Returns:
        lineage and promoted columns recomputed, ``event``, and two more; same rows, same order:
        redactions: VARCHAR[], the type of each redacted value, sorted; empty for an event that is as it was.
        dropped_by: VARCHAR, NULL, or `REDACTOR_FAILED` for a row that must not pass; its ``event`` is ``{}``.

    Raises:
        ConfigurationError: ``hash`` without a key.
    """
    if not config.enabled:
        untouched = frame.project("*, []::VARCHAR[] AS redactions, NULL::VARCHAR AS dropped_by")
        return with_columns(untouched, "redactions", "dropped_by")
    redactor = redactor_of(config, hash_key)
    function = _register(connection, redactor)
    first, second = (f"regexp_matches(event, {quote(trigger)})" for trigger in redactor.prefilters)
    outcomes = frame.project(
        f"*, CASE WHEN {first} THEN {function}(event) WHEN {second} THEN {function}_late(event) END AS outcome"
    )
    redacted = outcomes.project(
        "* REPLACE (coalesce(outcome.event, event) AS event), coalesce(outcome.types, []) AS redactions, "
        f"CASE WHEN outcome.failed THEN '{REDACTOR_FAILED}' END AS dropped_by, outcome.event IS NOT NULL AS is_changed"
    )
    return with_columns(redacted, "redactions", "dropped_by", where="is_changed")


def redacted_by_type(frame: Frame, by: str) -> dict[Any, dict[str, int]]:
    """Redacted values, from a frame's ``redactions``, by the value of ``by``, SQL, and by type; largest first."""
    return counts_by(frame.project(f"{by} AS part, unnest(redactions) AS type"), "part", "type")


def redact_text(event: str, config: RedactConfig, hash_key: bytes | None = None) -> tuple[str, dict[str, int]]:
    """Redact one event.

    Args:
        event: the text of one JSON object.
        config: as for `redact`.
        hash_key: as for `redact`.

    Returns:
        the event, the same text if nothing was found; redacted values by type.

    Raises:
        ConfigurationError: ``hash`` without a key.
        PermanentError: the redactor failed on it, for example because it is no JSON object. The event must not pass.
    """
    if not config.enabled:
        return event, {}
    outcome = redactor_of(config, hash_key).redact(event)
    if outcome.failed:
        raise PermanentError("the redactor failed on an event; it must not pass")
    return event if outcome.event is None else outcome.event, dict(Counter(outcome.types))


def redact_texts(events: Iterable[str], config: RedactConfig, hash_key: bytes | None = None) -> Iterator[Outcome]:
    """Redact events one after the other, as fast as a frame's: what `redact` does, without a database around it.

    Args:
        events: texts of JSON objects; some thousand are taken at a time.
        config: as for `redact`.
        hash_key: as for `redact`.

    Yields:
        the outcome for each, in their order; one that ``failed`` must not pass.

    Raises:
        ConfigurationError: ``hash`` without a key.
    """
    remaining = iter(events)
    redactor = redactor_of(config, hash_key) if config.enabled else None
    while vector := list(itertools.islice(remaining, _VECTOR)):
        yield from redactor.redact_hits(vector) if redactor else [UNCHANGED] * len(vector)


_VECTOR = 2_048
_OUTCOME = "STRUCT(event VARCHAR, types VARCHAR[], failed BOOLEAN)"
_function_numbers = itertools.count()
_one_at_a_time = threading.Lock()
"""Threads that hand the interpreter's lock to one another within a vector cost a fifth of the speed."""


@contextmanager
def _no_cyclic_garbage() -> Iterator[None]:
    """Put off the search for it: a vector makes ten thousands of short-lived objects, none of them in a cycle."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _register(connection: "duckdb.DuckDBPyConnection", redactor: Redactor) -> str:
    """Make a redactor known to a connection; returns the function's name there, of which ``_late`` has a variant."""
    name = f"redact_{next(_function_numbers)}"
    for variant, run in (name, redactor.redact_hits), (f"{name}_late", redactor.redact_late_hits):
        connection.create_function(
            variant,
            _of_one_vector(run),
            ["VARCHAR"],
            _OUTCOME,
            type=duckdb.func.ARROW,
            side_effects=True,  # else a filter on dropped_by has the optimizer compute everything twice
        )
    return name


def _of_one_vector(run: Callable[[list[str]], list[Outcome]]) -> Callable[["pa.Array"], "pa.Array"]:
    return lambda events: _redact_arrow(run, events)


def _redact_arrow(run: Callable[[list[str]], list[Outcome]], events: "pa.Array") -> "pa.Array":
    """One vector of the events in which a trigger fires."""
    import pyarrow as pa

    with _one_at_a_time, _no_cyclic_garbage():
        columns = list(zip(*run(events.to_pylist()), strict=True))
    types = (pa.string(), pa.list_(pa.string()), pa.bool_())
    return pa.StructArray.from_arrays(
        [pa.array(column, type_) for column, type_ in zip(columns, types, strict=True)], names=Outcome._fields
    )
