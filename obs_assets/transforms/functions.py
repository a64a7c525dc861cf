"""Functions of users, named by dotted path: their input and the changes that they may make.

A function gets batches of at most 2,048 rows as a `pandas.DataFrame` with Arrow-backed types, one batch
at a time. It must be pure: the same rows give the same result, however they are cut into batches. A
batch may hold rows of several hours. The text of its exceptions is never logged, because it may quote
an event.
"""

import hashlib
import importlib
import inspect
import itertools
import json
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import duckdb
import duckdb.func
from pydantic import AfterValidator

from obs_assets.errors import PermanentError
from obs_assets.events import LINEAGE, PROMOTED, Frame, with_columns
from obs_assets.storage.engine import wrap_failure

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Function = Callable[["pd.DataFrame"], Any]

READ_ONLY = (*LINEAGE, *PROMOTED)
"""Columns that a function may read and not change: they are computed from the event."""

_ROW = ", ".join([*READ_ONLY, "event"])

RESERVED = ("_source", "_event_file", "_enrichment", "_redaction", "_sampling", "_obs")
"""Keys of an event that the stages write."""

FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
"""Names of fields that a function may add."""

_numbers = itertools.count()
_one_at_a_time = threading.Lock()
"""A lock, because a user's function need not be safe for threads."""


def _importable(dotted: str) -> str:
    resolve(dotted)
    return dotted


DottedPath = Annotated[str, AfterValidator(_importable)]
"""A function's module and name: ``my_package.enrichments.add_team``. Imported when the configuration is read."""


def resolve(dotted: str) -> Function:
    """Import the function of that name.

    Raises:
        ValueError: the import fails, or the name is not a function.
    """
    module_name, _, name = dotted.rpartition(".")
    if not module_name:
        raise ValueError(f"{dotted!r} is no dotted path: write package.module.function")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # noqa: BLE001 - a module may raise anything while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"cannot import {dotted!r} ({reason}); its package must be installed, or on PYTHONPATH"
        ) from None
    if not callable(function):
        raise ValueError(f"{dotted!r} is no function")  # noqa: TRY004 - pydantic explains ValueErrors
    return function  # type: ignore[no-any-return]


def digest(dotted: str | None) -> str | None:
    """A short hash of a function's source: changed source is a changed configuration.

    None without a function; empty if the source cannot be read.
    """
    if dotted is None:
        return None
    try:
        source = inspect.getsource(resolve(dotted))
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def enrich_by(connection: duckdb.DuckDBPyConnection, frame: Frame, dotted: str) -> Frame:
    """Let a function add fields to the events of a frame.

    Each new column becomes a field of the event, unless the event has that field or the value is null. The
    function may also change ``event``. It must keep the rows, their order and the `READ_ONLY` columns.

    Args:
        connection: the frame's own.
        frame: lineage, promoted columns and ``event``.
        dotted: dotted path of the function, ``pandas.DataFrame -> pandas.DataFrame``.

    Returns:
        Lineage and promoted columns recomputed, ``event``.
    """
    function = resolve(dotted)
    name = _register(connection, dotted, "VARCHAR", lambda rows: _events_after(rows, function))
    return with_columns(frame.project(f"* REPLACE ({name}({_ROW}) AS event)"))


def kept_by(connection: duckdb.DuckDBPyConnection, dotted: str) -> str:
    """SQL that asks a function whether to keep a row with lineage, promoted columns and ``event``.

    Args:
        connection: the frame's own.
        dotted: dotted path of the function, ``pandas.DataFrame -> pandas.Series`` with a boolean for
            each row.
    """
    function = resolve(dotted)
    name = _register(connection, dotted, "BOOLEAN", lambda rows: _verdicts(rows, function))
    return f"{name}({_ROW})"


class _MisuseError(Exception):
    """A function broke a rule. The message is written here and quotes no event."""


def _register(
    connection: duckdb.DuckDBPyConnection,
    dotted: str,
    returns: str,
    work: Callable[["pa.Table"], "pa.Array"],
) -> str:
    """Register a function of rows as an SQL function of a connection; returns its name."""
    name = f"function_{next(_numbers)}"
    connection.create_function(
        name,
        lambda *columns: _guarded(dotted, work, columns),
        None,
        returns,
        type=duckdb.func.ARROW,
        null_handling=duckdb.func.SPECIAL,
        # Without it, DuckDB may call the function twice for a row.
        side_effects=True,
    )
    return name


def _guarded(
    dotted: str, work: Callable[["pa.Table"], "pa.Array"], columns: Iterable["pa.Array"]
) -> "pa.Array":
    """Call a function on rows. Its error becomes ours, without the text of an event."""
    import pyarrow as pa

    rows = pa.table(list(columns), [*READ_ONLY, "event"])
    try:
        with _one_at_a_time:
            return work(rows)
    except _MisuseError as error:
        blame = f"the function {dotted} {error}"
    except Exception as error:  # noqa: BLE001 - its message may quote an event
        blame = (
            f"the function {dotted} raised {type(error).__name__}; "
            "try it on obs_assets.read_hour(...)"
        )
    raise wrap_failure(PermanentError(f"{blame}: correct it, then materialize the hour again"))


def _events_after(rows: "pa.Table", function: Function) -> "pa.Array":
    """The events of rows after a function of ``enrich`` has seen them."""
    import pandas as pd
    import pyarrow as pa

    after = function(rows.to_pandas(types_mapper=pd.ArrowDtype))
    if not isinstance(after, pd.DataFrame):
        raise _MisuseError(f"returned {type(after).__name__} instead of a DataFrame")
    if len(after) != rows.num_rows:
        raise _MisuseError(
            f"returned {len(after):,} rows for {rows.num_rows:,}: it must keep the number of rows"
        )
    for name in READ_ONLY:
        if name not in after or not _is_same(rows[name], after[name]):
            raise _MisuseError(
                f"changed the column {name}, or the order of the rows: "
                "it may change event and add columns"
            )
    events = rows["event"].to_pylist()
    if "event" in after:
        events = _checked(events, after["event"].tolist())
    new_columns = [name for name in after.columns if name not in (*READ_ONLY, "event")]
    added = {str(name): after[name].tolist() for name in new_columns}
    if added:
        _check_names(added)
        events = [_with_fields(event, added, number) for number, event in enumerate(events)]
    return pa.array(events, pa.string())


def _is_same(column: "pa.ChunkedArray", after: "pd.Series[Any]") -> bool:
    import pyarrow as pa

    try:
        array = pa.Array.from_pandas(after, type=column.type)
        return bool(pa.chunked_array([array]).equals(column))
    except (pa.ArrowException, TypeError, ValueError):
        return False


def _checked(before: list[str], after: list[Any]) -> list[str]:
    """The changed events, of which each must still be a JSON object."""
    for old, new in zip(before, after, strict=True):
        # Most events are unchanged: parsing them would take longer than the function.
        if new is not old and new != old:
            _check_object(new)
    return after


def _check_object(text: Any) -> None:
    try:
        is_object = isinstance(json.loads(text), dict) and "\n" not in text
    except (ValueError, TypeError):
        is_object = False
    if not is_object:
        raise _MisuseError("made an event that is not a JSON object on a single line")


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not FIELD_NAME.fullmatch(name) or name in RESERVED:
            raise _MisuseError(
                "added a column whose name cannot be a field of an event: letters, digits, - and _"
            )


def _with_fields(event: str, added: Mapping[str, list[Any]], number: int) -> str:
    """The event with the added fields that it lacks.

    Args:
        event: a JSON object.
        added: field → its value for each event of the batch.
        number: position of the event in the batch.
    """
    present = json.loads(event)
    fields: list[str] = []
    for name, values in added.items():
        if name in present:
            continue
        text = _json(values[number], name)
        if text is not None:
            fields.append(f"{json.dumps(name)}:{text}")
    if not fields:
        return event
    # The fields are appended as text: numbers of the event keep their digits.
    beginning = event[:-1].rstrip()
    if present:
        beginning += ","
    return f"{beginning}{','.join(fields)}}}"


def _json(value: Any, name: str) -> str | None:
    """A value as JSON; None for a missing value."""
    if _is_missing(value):
        return None
    try:
        return json.dumps(
            value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain
        )
    except (TypeError, ValueError):
        raise _MisuseError(
            f"added to {name} a value that JSON does not know ({type(value).__name__})"
        ) from None


def _is_missing(value: Any) -> bool:
    import pandas as pd

    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return isinstance(value, float) and math.isnan(value)


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):  # an array of numpy
        return value.tolist()
    raise TypeError


def _as_python(value: Any) -> Any:
    """A scalar of numpy as the Python value: its boolean is not a `bool`."""
    if hasattr(value, "item"):
        return value.item()
    return value


def _verdicts(rows: "pa.Table", function: Function) -> "pa.Array":
    import pandas as pd
    import pyarrow as pa

    verdicts = list(function(rows.to_pandas(types_mapper=pd.ArrowDtype)))
    if len(verdicts) != rows.num_rows:
        raise _MisuseError(f"returned {len(verdicts):,} verdicts for {rows.num_rows:,} rows")
    kept = list(map(_as_python, verdicts))
    if not all(isinstance(verdict, bool) for verdict in kept):
        raise _MisuseError("returned a value that is neither true nor false")
    return pa.array(kept, pa.bool_())
