"""Counts an hour again where it lies, and compares contents row by row: the receipts' claims against what is there."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any

import duckdb

from obs_assets.destinations.base import Holding, Offer
from obs_assets.errors import ColdArchiveError, ObsError, PermanentError
from obs_assets.events import CONTENT_HASH, Frame
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES, Stage
from obs_assets.hours import Hour
from obs_assets.receipts import Receipt
from obs_assets.storage.engine import connect

# A destination that keeps no events of its own gives them back empty: then the rows alone are compared.
# Normalizing sorts keys and spells numbers one way; what still differs is looked at exactly, see `_same`.
_COMPARE = """
SELECT coalesce(here.row_uid, there.row_uid) AS row_uid, here.content AS here, there.content AS there
FROM here FULL JOIN there ON here.row_uid = there.row_uid
WHERE here.row_uid IS NULL OR there.row_uid IS NULL OR (there.event <> '' AND here.digest <> there.digest)
"""
_WITH_COLUMNS = """concat('[', event, ',', columns, ']')"""
"""The event and the columns that the destination computed from it, as one JSON text."""


@dataclass(frozen=True)
class Verdict:
    """What one store holds of an hour.

    Attributes:
        store: ``landed``, a stage or a destination.
        rows: counted there now.
        expected: what it should hold.
        missing, unexpected, different: rows by what is wrong with them.
        problem: a sentence, where the store could not be read or its receipt does not add up.
        note: a sentence, where it was compared in another way than row by row.
    """

    store: str
    rows: int = 0
    expected: int = 0
    missing: int = 0
    unexpected: int = 0
    different: int = 0
    problem: str = ""
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return (
            not (self.problem or self.missing or self.unexpected or self.different)
            and self.rows == self.expected
        )

    def __str__(self) -> str:
        if self.ok:
            return self.note or f"{self.rows:,} rows, as they should be"
        if self.problem:
            return self.problem
        wrong = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "with other content": self.different,
        }
        named = ", ".join(f"{count:,} {what}" for what, count in wrong.items() if count)
        return f"{self.rows:,} rows where {self.expected:,} should be: {named or 'the count differs'}"


def verify(hourly: HourlyPipeline, hour: Hour) -> Iterator[Verdict]:
    """Verify an hour at every stage and destination, one verdict each, in the order of the flow."""
    questions: dict[str, Callable[[duckdb.DuckDBPyConnection], Verdict]] = {
        "landed_events": partial(_landed, hourly, hour),
        **{stage: partial(_stage, hourly, hour, stage) for stage in STAGES},
        **{
            name: partial(_destination, hourly, hour, name) for name in hourly.destination_names
        },
    }
    with connect(hourly.store.temp_dir) as connection:
        for name, question in questions.items():
            try:
                yield question(connection)
            except ObsError as error:
                yield Verdict(name, problem=str(error))


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn DuckDB's errors, which may quote what they could not read, into one of ours."""
    try:
        yield
    except (duckdb.Error, UnicodeDecodeError) as error:
        raise PermanentError(f"{what} cannot be read ({type(error).__name__})") from None


def _landed(
    hourly: HourlyPipeline, hour: Hour, connection: duckdb.DuckDBPyConnection
) -> Verdict:
    landed = hourly.landed().hour(hour)
    chunks = hourly.log.chunk_paths(landed)
    if not all(chunk.exists() for chunk in chunks):
        return Verdict("landed_events", problem="a chunk that the landing log names is missing")
    with _reading("a chunk"):
        rows = (
            _count(connection.read_parquet([str(chunk) for chunk in chunks])) if chunks else 0
        )
    return Verdict("landed_events", rows, landed.rows)


def _stage(
    hourly: HourlyPipeline, hour: Hour, stage: Stage, connection: duckdb.DuckDBPyConnection
) -> Verdict:
    receipt = hourly.store.read_receipt(stage, hour).check()
    with _reading("the frame"):
        frame = hourly.store.read_frame(connection, stage, hour)
        rows, content = frame.aggregate(f"count(*), {CONTENT_HASH}").fetchall()[0]
    before = _rows_before(hourly, stage, hour)
    if receipt.taken != before:
        return Verdict(
            stage,
            rows,
            receipt.kept,
            problem=f"took {receipt.taken:,} rows where the stage before holds {before:,}",
        )
    changed = (
        rows == receipt.kept and bool(receipt.content_hash) and content != receipt.content_hash
    )
    return Verdict(
        stage,
        rows,
        receipt.kept,
        problem="the content is not what the receipt says" if changed else "",
    )


def _rows_before(hourly: HourlyPipeline, stage: Stage, hour: Hour) -> int:
    place = STAGES.index(stage)
    if place == 0:
        return hourly.landed().hour(hour).rows
    before: Receipt = hourly.store.read_receipt(STAGES[place - 1], hour)
    return before.kept


def _destination(
    hourly: HourlyPipeline, hour: Hour, name: str, connection: duckdb.DuckDBPyConnection
) -> Verdict:
    destination = hourly.destination(name)
    with _reading("the frame that it takes"):
        offer = hourly.offer(connection, name, hour)
        offered = destination.selected(offer.frame)
        expected = _count(offered)
    try:
        with _reading("what it holds"):
            there = destination.read_back(connection, hour)
            rows = _count(there)
    except ColdArchiveError as cold:
        problem = _ledger_problem(destination.holding(hour), offer)
        return Verdict(name, cold.rows, expected, problem=problem, note=str(cold))
    content = _WITH_COLUMNS if "columns" in there.columns else "event"
    digest = f"row_uid, event, {content} AS content, md5(json_normalize({content})) AS digest"
    offered.project(digest).create_view("here", replace=True)
    there.project(digest).create_view("there", replace=True)
    with _reading("what it holds"):
        differences = connection.sql(_COMPARE).fetchall()
    verdict = Verdict(
        name,
        rows,
        expected,
        missing=sum(
            is_there is None and is_here is not None for _, is_here, is_there in differences
        ),
        unexpected=sum(is_here is None for _, is_here, is_there in differences),
        different=sum(
            is_here is not None and is_there is not None and not _same(is_here, is_there)
            for _, is_here, is_there in differences
        ),
    )
    if verdict.ok:
        hourly.store.read_receipt(name, hour).check()
        return replace(verdict, problem=_ledger_problem(destination.holding(hour), offer))
    return verdict


def _ledger_problem(holding: Holding | None, offer: Offer) -> str:
    """What is wrong with what a destination's own ledger says of an hour whose rows are right."""
    if holding is None:
        return "its rows are right, but its ledger does not know the hour: materialize it again"
    if (holding.version.generation, holding.content_hash) != (
        offer.version.generation,
        offer.content_hash,
    ):
        return (
            f"its rows are right, but its ledger names landing generation {holding.version.generation} where the frame "
            f"is of {offer.version.generation}, or other content: materialize it again"
        )
    return ""


def _count(frame: Frame) -> int:
    return int(frame.aggregate("count(*)").fetchall()[0][0])


def _same(one: str, other: str) -> bool:
    """Whether two JSON texts say the same, numbers compared by value: ``1.50`` is ``1.5``, and no digit is lost."""
    return bool(_exactly(one) == _exactly(other))


def _exactly(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)
