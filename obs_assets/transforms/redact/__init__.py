"""Nothing personal and no secret beyond this step: ``enriched_events`` become ``redacted_events``.

The rules are in `obs_assets.transforms.detectors`; here is how they reach every string, number and key of an event at
the speed of a database:

1. RE2 looks for any trigger in the raw text of some thousand events at once (`redactor`), for a large hour in several
   processes (`workers`). Without one an event passes as the bytes it is.
2. Of the strings in which one fires, nine in ten can be told without parsing (`in_place`), for the rest a walk keeps
   track of where it is (`walk`).
3. The strings are judged by the exact rules, one rule after the other (`rules`); the outcome
   is remembered, since values repeat.
4. The new literals are spliced into the text. Everything else keeps its bytes, numbers keep their digits. What was
   done is told in the event (`mark`).

`redact_text` walks to every member of an event instead, trigger or not, and never edits in place: for single events,
and the slow truth that the fast way is tested against.

An event on which the redactor fails is set aside as a dead letter, without a word of it in any message.
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
"""Why a row is dropped: the redactor raised on it."""


def redact(
    connection: "duckdb.DuckDBPyConnection",
    frame: Frame,
    config: RedactConfig,
    hash_key: bytes | None = None,
    workers: Workers | None = None,
) -> Frame:
    """Redact every event of a frame.

    Args:
        connection: the frame's own.
        frame: lineage, promoted columns and ``event``, the text of one JSON object on one line.
        config: what, where and how.
        hash_key: the key of ``hash`` tokens: who has it can test guesses.
        workers: processes of the same configuration that do it; this one if None.

    Returns:
        lineage and promoted columns recomputed, ``event``, and two more; same rows, same order:
        redactions: VARCHAR[], the type of each redacted value, sorted; empty for an event that is as it was.
        dropped_by: VARCHAR, NULL, or `REDACTOR_FAILED` for a row that must not pass; its ``event`` is ``{}``.

    Raises:
        ConfigurationError: ``hash`` without a key.
        EngineError: the self-test of redaction failed.
    """
    if not config.enabled:
        untouched = frame.project("*, []::VARCHAR[] AS redactions, NULL::VARCHAR AS dropped_by")
        return with_columns(untouched, "redactions", "dropped_by")
    check_engine()  # here too: workers test themselves, but their error would not be heard
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
    """Redacted values, from a frame's ``redactions``, by the value of ``by``, SQL, and by type; largest first."""
    return counts_by(frame.project(f"{by} AS part, unnest(redactions) AS type"), "part", "type")


def redact_text(
    event: str, config: RedactConfig, hash_key: bytes | None = None
) -> tuple[str, dict[str, int]]:
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


def redact_texts(
    events: Iterable[str], config: RedactConfig, hash_key: bytes | None = None
) -> Iterator[Outcome]:
    """Redact events one after the other, as fast as a frame's: what `redact` does, without a database around it.

    Args:
        events: texts of JSON objects; some thousand are taken at a time.
        config: as for `redact`.
        hash_key: as for `redact`.

    Yields:
        the outcome for each, in their order; one that ``failed`` must not pass, for example because it is no object.

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
_function_numbers = itertools.count()


def _register(connection: "duckdb.DuckDBPyConnection", redactor: Redactor | Workers) -> str:
    """Make a redactor known to a connection; returns the function's name there."""
    name = f"redact_{next(_function_numbers)}"
    connection.create_function(
        name,
        lambda events: _redact_vector(redactor, events.combine_chunks()),
        ["VARCHAR"],
        SQL_TYPE,
        type=duckdb.func.ARROW,
        null_handling=duckdb.func.SPECIAL,  # an outcome may be null, an event never is
        side_effects=True,  # else a filter on dropped_by has the optimizer compute everything twice
    )
    return name


def _redact_vector(redactor: Redactor | Workers, events: pa.StringArray) -> pa.StructArray:
    try:
        return to_arrow(redactor.redact_all(events), len(events))
    except TransientError as error:
        raise wrap_failure(error) from None
