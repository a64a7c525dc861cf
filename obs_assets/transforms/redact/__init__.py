"""Removes personal data and secrets: ``enriched_events`` become ``redacted_events``.

The rules are in `obs_assets.transforms.detectors`. This package applies them to every string, number and key of an
event, at the speed of a database:

1. RE2 searches the raw text of some thousand events at once for triggers (`redactor`). A large hour is shared between
   several processes (`workers`). An event without a trigger passes with its bytes unchanged.
2. For nine strings in ten with a trigger, key and path are found without parsing the event (`in_place`). For the rest,
   a walk through the JSON text keeps track of the path (`walk`).
3. The exact rules are applied to these strings, each rule to all strings before the next rule (`rules`). The result is
   remembered, since values repeat.
4. The new literals replace the old literals in the text. Everything else keeps its bytes, and numbers keep their
   digits. The event lists its redactions under ``_redaction`` (`mark`).

`redact_text` walks to every member of an event, with or without a trigger, and never edits in place. It serves single
events. Tests compare the fast way with it.

An event on which the redactor fails becomes a dead letter. No message quotes the event.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import duckdb.func
import pyarrow as pa

from obs_assets.errors import PermanentError, TransientError
from obs_assets.events import Frame, counts_by, with_columns
from obs_assets.storage.engine import wrap_failure
from obs_assets.transforms.redact.arrays import SQL_TYPE, to_arrow
from obs_assets.transforms.redact.config import CustomPattern, RedactConfig
from obs_assets.transforms.redact.in_place import FAILED, UNCHANGED, Outcome
from obs_assets.transforms.redact.redactor import Redactor, redactor_of
from obs_assets.transforms.redact.self_test import check_engine
from obs_assets.transforms.redact.workers import Workers, workers_for

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "REDACTOR_FAILED",
    "CustomPattern",
    "RedactConfig",
    "Workers",
    "redact",
    "redact_text",
    "redact_texts",
    "redacted_by_type",
    "workers_for",
]

REDACTOR_FAILED = "redactor_failed"
"""The value of ``dropped_by`` for an event on which the redactor raised an error."""


def redact(
    connection: "duckdb.DuckDBPyConnection",
    frame: Frame,
    config: RedactConfig,
    hash_key: bytes | None = None,
    workers: Workers | None = None,
) -> Frame:
    """Redact every event of a frame.

    Args:
        connection: the connection of the frame.
        frame: lineage, promoted columns and ``event``, the text of a JSON object on a single line.
        config: the ``redact`` block of the pipeline.
        hash_key: the key of ``hash`` tokens. With this key, guesses of a value can be tested: keep it secret.
        workers: processes with the same configuration; if None, this process redacts.

    Returns:
        the same rows in the same order. Lineage and promoted columns are recomputed, and two columns are added:
        redactions: VARCHAR[], the type of each redacted value, sorted; empty for an unchanged event.
        dropped_by: VARCHAR, NULL, or `REDACTOR_FAILED` for a row that must not pass; its ``event`` is ``{}``.

    Raises:
        ConfigurationError: ``hash`` without a key.
        EngineError: the self-test of redaction failed.
    """
    if not config.enabled:
        untouched = frame.project("*, []::VARCHAR[] AS redactions, NULL::VARCHAR AS dropped_by")
        return with_columns(untouched, "redactions", "dropped_by")
    check_engine()  # here too: workers test themselves, but their error does not reach this process
    function = _register(connection, workers or redactor_of(config, hash_key))
    outcomes = frame.project(f"*, {function}(event) AS outcome")
    redacted = outcomes.project(
        "* REPLACE (coalesce(outcome.event, event) AS event), "
        "coalesce(list_sort(string_split(nullif(outcome.types, ''), ' ')), []) AS redactions, "
        f"CASE WHEN outcome.failed THEN '{REDACTOR_FAILED}' END AS dropped_by, "
        "coalesce(outcome.recompute, false) AS recompute"
    )
    return with_columns(redacted, "redactions", "dropped_by", where="recompute")


def redacted_by_type(frame: Frame, by: str) -> dict[Any, dict[str, int]]:
    """Count redacted values by group and by type, largest count first.

    Args:
        frame: a frame with ``redactions``.
        by: the group of an event, an SQL expression.
    """
    return counts_by(frame.project(f"{by} AS part, unnest(redactions) AS type"), "part", "type")


def redact_text(
    event: str, config: RedactConfig, hash_key: bytes | None = None
) -> tuple[str, dict[str, int]]:
    """Redact a single event.

    Args:
        event: the text of a JSON object.
        config: as for `redact`.
        hash_key: as for `redact`.

    Returns:
        the event, which is the same text if nothing was found; and the number of redacted values by type.

    Raises:
        ConfigurationError: ``hash`` without a key.
        PermanentError: the redactor failed, for example because the text is no JSON object. The event must not pass.
    """
    if not config.enabled:
        return event, {}
    outcome = redactor_of(config, hash_key).redact(event)
    if outcome.failed:
        raise PermanentError("the redactor failed on an event; it must not pass")
    return event if outcome.event is None else outcome.event, dict(Counter(outcome.types))


def redact_texts(
    events: Iterable[str], config: RedactConfig, hash_key: bytes | None = None
) -> Iterator[Outcome]:
    """Redact events without a database, as fast as `redact` does it in a frame.

    Args:
        events: texts of JSON objects; some thousand are read at a time.
        config: as for `redact`.
        hash_key: as for `redact`.

    Yields:
        the outcome of each event, in the order of the events. An event whose outcome has ``failed`` must not pass; it
        is, for example, no JSON object.

    Raises:
        ConfigurationError: ``hash`` without a key.
    """
    remaining = iter(events)
    redactor = redactor_of(config, hash_key) if config.enabled else None
    while vector := list(itertools.islice(remaining, _VECTOR)):
        outcomes = redactor.redact_all(pa.array(vector, pa.string())) if redactor else {}
        for number, event in enumerate(vector):
            yield outcomes.get(number) or (
                UNCHANGED if event.lstrip().startswith("{") else FAILED
            )


_VECTOR = 2_048
"""Events that `redact_texts` redacts together: as many as in a vector of DuckDB."""

_function_numbers = itertools.count()


def _register(connection: "duckdb.DuckDBPyConnection", redactor: Redactor | Workers) -> str:
    """Register a redactor as a function of the connection, and return the name of the function."""
    name = f"redact_{next(_function_numbers)}"
    connection.create_function(
        name,
        lambda events: _redact_vector(redactor, events.combine_chunks()),
        ["VARCHAR"],
        SQL_TYPE,
        type=duckdb.func.ARROW,
        null_handling=duckdb.func.SPECIAL,  # an outcome may be null, an event is never null
        # Without it, a filter on dropped_by makes the optimizer compute all outcomes twice
        side_effects=True,
    )
    return name


def _redact_vector(redactor: Redactor | Workers, events: pa.StringArray) -> pa.StructArray:
    try:
        return to_arrow(redactor.redact_all(events), len(events))
    except TransientError as error:
        raise wrap_failure(error) from None
