"""Checks receipts against the stores: counts an hour again and compares events row by row."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any

import duckdb

from obs_assets.destinations.base import Holding, Offer, of_other_folder
from obs_assets.errors import ColdArchiveError, ObsError, PermanentError
from obs_assets.events import CONTENT_HASH, Frame
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES, Stage
from obs_assets.hours import Hour
from obs_assets.receipts import Receipt
from obs_assets.storage.engine import connect

# A destination that does not keep the event text returns it empty: then only the rows are compared.
# Normalizing sorts keys, but can change numbers: rows that differ are compared exactly, see `_is_same`.
_COMPARE = """
SELECT coalesce(here.row_uid, there.row_uid) AS row_uid, here.content AS here, there.content AS there
FROM here FULL JOIN there ON here.row_uid = there.row_uid
WHERE here.row_uid IS NULL OR there.row_uid IS NULL OR (there.event <> '' AND here.digest <> there.digest)
"""
_WITH_COLUMNS = """concat('[', event, ',', columns, ']')"""
"""The event and the columns that the destination computed from it, as one JSON text."""


@dataclass(frozen=True)
class HourCheck:
    """The state of an hour in a store.

    Attributes:
        store: ``landed_events``, a stage or a destination.
        rows: number of rows, counted now.
        expected: number of rows that the store should hold.
        missing: number of rows that should be there and are not.
        unexpected: number of rows that are there and should not be.
        different: number of rows with other content than expected.
        problem: a sentence, if the store could not be read or its receipt does not add up.
        note: a sentence, if the rows could not be compared and the store was checked otherwise.
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
        wrong_rows = self.missing or self.unexpected or self.different
        return not (self.problem or wrong_rows) and self.rows == self.expected

    def __str__(self) -> str:
        if self.ok:
            return self.note or f"OK, {self.rows:,} rows"
        if self.problem:
            return self.problem
        wrong = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "with other content": self.different,
        }
        named = ", ".join(f"{count:,} {problem}" for problem, count in wrong.items() if count)
        return f"{self.rows:,} rows, {self.expected:,} expected: {named or 'the count differs'}"


def verify(hourly: HourlyPipeline, hour: Hour) -> Iterator[HourCheck]:
    """Verify an hour in every store, in the order in which events pass through them.

    An error in our own code is raised; it is no problem of a store.
    """
    # The order of the keys is the order in which events pass through the stores.
    check_of: dict[str, Callable[[duckdb.DuckDBPyConnection], HourCheck]] = {
        "landed_events": partial(_landed, hourly, hour)
    }
    for stage in STAGES:
        check_of[stage] = partial(_stage, hourly, hour, stage)
    for name in hourly.destination_names:
        check_of[name] = partial(_destination, hourly, hour, name)
    with connect(hourly.store.temp_dir) as connection:
        for store, check in check_of.items():
            try:
                yield check(connection)
            except ObsError as error:
                yield HourCheck(store, problem=str(error))


@contextmanager
def _reading(store: str) -> Iterator[None]:
    """Turn errors of DuckDB, which can quote an event, into an error of ours.

    Args:
        store: subject of the message, for example ``a chunk``.
    """
    try:
        yield
    except (duckdb.Error, UnicodeDecodeError) as error:
        raise PermanentError(f"{store} cannot be read ({type(error).__name__})") from None


def _landed(
    hourly: HourlyPipeline, hour: Hour, connection: duckdb.DuckDBPyConnection
) -> HourCheck:
    landed = hourly.landed().hour(hour)
    chunks = hourly.log.chunk_paths(landed)
    if not all(chunk.exists() for chunk in chunks):
        problem = "a chunk that the landing log names is missing"
        return HourCheck("landed_events", problem=problem)
    rows = 0
    if chunks:
        with _reading("a chunk"):
            rows = _count(connection.read_parquet([*map(str, chunks)]))
    return HourCheck("landed_events", rows, landed.rows)


def _stage(
    hourly: HourlyPipeline, hour: Hour, stage: Stage, connection: duckdb.DuckDBPyConnection
) -> HourCheck:
    receipt = hourly.store.read_receipt(stage, hour).check()
    with _reading("the frame"):
        frame = hourly.store.read_frame(connection, stage, hour)
        rows, content = frame.aggregate(f"count(*), {CONTENT_HASH}").fetchall()[0]
    before = _rows_before(hourly, stage, hour)
    # Stages before redaction have no content hash; a wrong number of rows is reported as such.
    is_comparable = receipt.content_hash and rows == receipt.kept
    problem = ""
    if receipt.taken != before:
        problem = f"took {receipt.taken:,} rows, but the stage before holds {before:,}"
    elif is_comparable and content != receipt.content_hash:
        problem = "the content hash differs from the receipt"
    return HourCheck(stage, rows, receipt.kept, problem=problem)


def _rows_before(
    hourly: HourlyPipeline,
    stage: Stage,
    hour: Hour,
) -> int:
    """Number of rows that the stage before holds, by its receipt or by the landing log."""
    index = STAGES.index(stage)
    if index == 0:
        return hourly.landed().hour(hour).rows
    before: Receipt = hourly.store.read_receipt(STAGES[index - 1], hour)
    return before.kept


def _destination(
    hourly: HourlyPipeline, hour: Hour, name: str, connection: duckdb.DuckDBPyConnection
) -> HourCheck:
    destination = hourly.destination(hourly.holder(name, hour))
    with _reading("the frame that is loaded into it"):
        offer = hourly.offer(connection, name, hour)
        offered = destination.selected(offer.frame)
        expected = _count(offered)
    try:
        with _reading("its rows"):
            there = destination.read_back(connection, hour)
            rows = _count(there)
    except ColdArchiveError as cold:
        # The objects cannot be read for hours, but their manifest gives the number of rows.
        problem = _ledger_problem(destination.holding(hour), offer)
        return HourCheck(
            name,
            cold.rows,
            expected,
            problem=problem,
            note=str(cold),
        )
    content = _WITH_COLUMNS if "columns" in there.columns else "event"
    digest = f"row_uid, event, {content} AS content, md5(json_normalize({content})) AS digest"
    offered.project(digest).create_view("here", replace=True)
    there.project(digest).create_view("there", replace=True)
    with _reading("its rows"):
        differences = connection.sql(_COMPARE).fetchall()
    missing = unexpected = different = 0
    for _, text_here, text_there in differences:
        if text_here is None:
            unexpected += 1
        elif text_there is None:
            missing += 1
        elif not _is_same(text_here, text_there):
            different += 1
    check = HourCheck(name, rows, expected, missing, unexpected, different)
    held = destination.holding(hour)
    # Rows of another data folder differ by nature; the command that adopts them is the useful answer.
    if held and held.version.standing(offer.version) == "other log":
        return replace(
            check,
            problem=of_other_folder(
                hour,
                held.version,
                offer.version,
            ),
        )
    if check.ok:
        # Right rows are not enough: the next delivery decides by receipt and ledger.
        hourly.store.read_receipt(name, hour).check()
        return replace(check, problem=_ledger_problem(destination.holding(hour), offer))
    return check


def _ledger_problem(holding: Holding | None, offer: Offer) -> str:
    """The mistake in the ledger about an hour whose rows are right, as a sentence; empty without a mistake."""
    if holding is None:
        return "its rows are right, but its ledger lacks the hour: materialize it again"
    standing = holding.version.standing(offer.version)
    if standing == "other log":
        return of_other_folder(offer.hour, holding.version, offer.version)
    held, offered = holding.version.generation, offer.version.generation
    if standing == "same" and holding.content_hash == offer.content_hash:
        return ""
    mistake = "other content"
    if held != offered:
        mistake = f"landing generation {held} instead of {offered}"
    return f"its rows are right, but its ledger names {mistake}: materialize it again"


def _count(frame: Frame) -> int:
    return int(frame.aggregate("count(*)").fetchall()[0][0])


def _is_same(here: str, there: str) -> bool:
    """Whether two JSON texts have the same content; numbers are compared by value: ``1.50`` is ``1.5``."""
    return bool(_exactly(here) == _exactly(there))


def _exactly(text: str) -> Any:
    """The values of a JSON text, with every digit of its numbers."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)
