"""What a destination is to the rest: it takes an hour whole, says what it holds, and can be read back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

import duckdb
from pydantic import Field

from obs_assets.config import Block
from obs_assets.events import Frame
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion, Receipt
from obs_assets.transforms.filter import FilterConfig


class DestinationConfig(Block, frozen=True):
    """Options that every destination has.

    Attributes:
        name: name of the asset, of its ledger and of its metrics; by default the name of its type,
            for example ``postgres_events``.
        from_: the frame that the destination receives: ``sampled`` (after filter and sampling) or
            ``redacted`` (every event). No destination receives a frame before redaction.
        filter: a filter for this destination alone, applied to that frame; it has the options of
            the ``filter`` block.
    """

    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.-]{1,100}$", examples=["error_archive"]
    )
    from_: Literal["redacted", "sampled"] = Field("sampled", alias="from")
    filter: FilterConfig | None = Field(None, examples=[{"drop_levels": ["debug"]}])

    @property
    def stage(self) -> Literal["redacted_events", "sampled_events"]:
        """The asset whose frame it takes."""
        return "redacted_events" if self.from_ == "redacted" else "sampled_events"

    def has_expired(self, hour: Hour, now: datetime) -> bool:
        """Whether an hour is older than the destination keeps: what it no longer holds of that is no damage."""
        del hour, now
        return False


@dataclass(frozen=True)
class Offer:
    """An hour as it is offered to a destination.

    Attributes:
        frame: lineage and promoted columns, ``weight`` (DOUBLE) and ``event``, sorted by (event_time, row_uid).
        hour: which hour.
        version: what the frame was built from; only its generation is compared for older or newer.
        rows: of the frame.
        content_hash: of the frame, see `obs_assets.events.CONTENT_HASH`.
        run_id: who offers it, for ledgers.
        rebuild: write even if the destination holds this very version.
        receipts: of the stages that the frame came through, in their order.
        closed_until: hours before it are closed; by default all that are over.
    """

    frame: Frame = field(repr=False)
    hour: Hour
    version: InputVersion
    rows: int
    content_hash: str
    run_id: str = ""
    rebuild: bool = False
    receipts: tuple[Receipt, ...] = ()
    closed_until: Hour | None = None


@dataclass(frozen=True)
class Delivery:
    """What became of an offer: ``offered = written + already_there + sum(refused.values())``.

    Attributes:
        stats: figures for the UI, by name.
        tables: title → what the UI lists under it.
    """

    written: int
    already_there: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    size_bytes: int = 0
    stats: Mapping[str, int | float | str] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, int | float | str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Holding:
    """What a destination's own ledger says that it holds of an hour.

    Attributes:
        counted: number of rows that are there, if it was asked for and the destination keeps rows.
        altered: number of groups of rows whose columns were changed after the load.
    """

    version: InputVersion
    rows: int
    content_hash: str
    counted: int | None = None
    altered: int = 0


@dataclass(frozen=True)
class Column:
    """A column as the catalogue shows it: its name, its type in words of the destination, its meaning."""

    name: str
    type: str
    meaning: str


@dataclass(frozen=True)
class Page:
    """How the catalogue shows a destination.

    Attributes:
        table: name of the table, with its schema; empty where there is none.
        columns: of the table, or fields of a stored line; none where single events are not kept.
    """

    table: str = ""
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True)
class StoredPart:
    """A part of an hour as it is stored, for a restore.

    Attributes:
        url: names the part; a restored row has it as its file.
        rows: reads it: ``row_uid``, ``event``, and ``length``, the bytes that the row takes there.
    """

    url: str
    rows: Callable[[duckdb.DuckDBPyConnection], Frame]


class Destination(Protocol):
    """A service that takes hours. Implementations know neither Dagster nor each other."""

    def deliver(self, offer: Offer) -> Delivery:
        """Make the destination hold exactly the offered hour; harmless to repeat.

        Raises:
            StaleHourError: it holds a newer generation.
            TransientError: it may work later.
            PermanentError: it will not.
        """

    def holding(self, hour: Hour, *, count: bool = False) -> Holding | None:
        """The ledger's row of an hour, and with ``count`` the rows that are there; None when it never took one."""

    def holdings(self) -> Mapping[Hour, Holding]:
        """The ledger's rows of all hours whose data is still there: an hour that somebody deleted is missing.

        Cheap for thousands of hours: a few requests in all, and no row is read. Part of an hour may be gone unnoticed:
        `obs_assets.audit.verify` compares rows.

        Raises:
            TransientError: the destination cannot be asked.
        """

    def selected(self, frame: Frame) -> Frame:
        """The rows of an offered frame that it should hold, ``event`` as it would hold it.

        A destination that keeps columns beside the event adds ``columns``: a JSON object of them.
        """

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """The stored rows, in any order: ``row_uid``, ``event`` without the fields that delivery added, and
        ``columns`` if `selected` gives it.

        ``event`` is empty if the destination keeps no single events.
        """

    def check(self) -> str:
        """One line that says what was reached.

        Raises:
            ConfigurationError: it cannot be reached; names the setting to change.
        """
