"""The interface of destinations: an hour is delivered whole, has a row in a ledger, and is read back.

A destination that cannot keep events, such as a webhook, reads back the identities of its rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

import duckdb
from pydantic import Field

from obs_assets.config import Block
from obs_assets.errors import OtherLogError, StaleHourError
from obs_assets.events import Frame
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion, Receipt, short_id
from obs_assets.transforms.filter import FilterConfig


class FailoverConfig(Block, frozen=True):
    """Another destination that takes the hours of an outage.

    Attributes:
        to: name of another destination of the pipeline. It gets no other hours and has no asset.
        after_minutes: length of an outage from which hours go there.
        hand_back: when the destination answers again, the hours are delivered to it and removed from
            the other; ``to`` must then be of a kind that replaces hours. Otherwise they stay there.
    """

    to: str = Field(examples=["spare_archive"])
    after_minutes: float = Field(15, ge=0, le=7 * 24 * 60)
    hand_back: bool = True


class DestinationConfig(Block, frozen=True):
    """Options that every destination has.

    Attributes:
        name: name of the asset, of its ledger and of its metrics; by default the name of its type,
            for example ``postgres_events``.
        from_: the frame that the destination receives: ``sampled`` (after filter and sampling) or
            ``redacted`` (every event). No destination receives a frame before redaction.
        filter: a filter for this destination alone, applied to that frame; it has the options of
            the ``filter`` block.
        failover: another destination that takes the hours while this destination fails.
    """

    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.-]{1,100}$", examples=["error_archive"]
    )
    from_: Literal["redacted", "sampled"] = Field("sampled", alias="from")
    filter: FilterConfig | None = Field(None, examples=[{"drop_levels": ["debug"]}])
    failover: FailoverConfig | None = Field(None, examples=[{"to": "spare_archive"}])

    @property
    def stage(self) -> Literal["redacted_events", "sampled_events"]:
        """Name of the asset whose frame the destination receives."""
        return "redacted_events" if self.from_ == "redacted" else "sampled_events"

    def has_expired(self, hour: Hour, now: datetime) -> bool:
        """Whether an hour is older than the destination keeps, so that missing rows are no damage."""
        del hour, now  # without a retention the destination keeps each hour
        return False


@dataclass(frozen=True)
class Offer:
    """An hour as it is offered to a destination.

    Attributes:
        frame: lineage and promoted columns, ``weight`` (DOUBLE) and ``event``, sorted by
            (event_time, row_uid).
        hour: the hour of the rows.
        version: the inputs that the frame was built from; `refuse_older` compares it with the
            version that the destination holds.
        rows: number of rows in the frame.
        content_hash: hash of the frame, see `obs_assets.events.CONTENT_HASH`.
        run_id: identity of the run that offers the hour, for ledgers.
        rebuild: write even if the destination holds the same version.
        receipts: receipts of the stages that the frame went through, in their order.
        closed_until: hours before it are closed; by default all hours that have ended.
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
    """The result of an offer: ``offered = written + already_there + sum(refused.values())``.

    Attributes:
        written: number of rows that were written.
        already_there: number of rows that the destination held before.
        refused: reason → number of rows that the destination does not take.
        size_bytes: bytes that were sent to the destination.
        stats: name → figure for the UI.
        tables: title → rows of a table in the UI.
    """

    written: int
    already_there: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    size_bytes: int = 0
    stats: Mapping[str, int | float | str] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, int | float | str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Holding:
    """An hour in a destination's own ledger.

    Attributes:
        version: the inputs that the hour was built from.
        rows: number of rows, by the ledger.
        content_hash: hash of the rows, see `obs_assets.events.CONTENT_HASH`.
        counted: number of rows that the destination holds, if they were counted.
        altered: number of groups of rows whose columns were changed after the load.
    """

    version: InputVersion
    rows: int
    content_hash: str
    counted: int | None = None
    altered: int = 0


def of_other_folder(hour: Hour, held: InputVersion, landed: InputVersion) -> str:
    """The sentence about an hour that a destination holds from another data folder."""
    return (
        f"{hour} was loaded from another data folder (landing log {short_id(held.log_id)}; "
        f"this folder's is {short_id(landed.log_id)}), and landing passes of two folders cannot be "
        f"compared: `obs adopt {hour}` makes it this folder's hour, and with --dry-run shows the effect"
    )


def refuse_older(
    where: str,
    held: Holding | None,
    offer: Offer,
) -> None:
    """Let an offer pass that takes no events away: every destination asks this before it writes.

    Args:
        where: the destination, in words.
        held: the ledger's row of the hour; None if the destination does not hold it.
        offer: the hour that would replace it.

    Raises:
        OtherLogError: it holds the hour from another data folder.
        StaleHourError: it holds a newer generation.
    """
    standing = held.version.standing(offer.version) if held else "older"
    if held and standing == "other log":
        raise OtherLogError(
            f"{where}: {of_other_folder(offer.hour, held.version, offer.version)}"
        )
    if held and standing == "newer":
        raise StaleHourError(
            f"{where} holds generation {held.version.generation} of {offer.hour}, newer than the offered "
            f"{offer.version.generation}: materialize the stages before it again"
        )


@dataclass(frozen=True)
class Column:
    """A column in the catalogue.

    Attributes:
        name: name of the column.
        type: type in the words of the destination, for example ``timestamptz``.
        meaning: meaning and unit, in a sentence.
    """

    name: str
    type: str
    meaning: str


@dataclass(frozen=True)
class Page:
    """The page of a destination in the catalogue.

    Attributes:
        table: name of the table with its schema, for example ``public.events``; empty without table.
        columns: columns of the table, or fields of a stored line; empty where events are not kept.
    """

    table: str = ""
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True)
class StoredPart:
    """A stored part of an hour, for a restore.

    Attributes:
        url: address of the part, for example ``s3://archive/…/events-2025120410.jsonl.gz``; a
            restored row has it as its source file.
        rows: reads the part: ``row_uid``, ``event``, and ``length``, the stored bytes of the row.
    """

    url: str
    rows: Callable[[duckdb.DuckDBPyConnection], Frame]


class Destination(Protocol):
    """A service that hours are delivered to. Implementations know neither Dagster nor each other."""

    def deliver(self, offer: Offer) -> Delivery:
        """Make the destination hold exactly the offered hour. A repetition changes nothing.

        Raises:
            StaleHourError: the destination holds a newer generation, or the hour from another
                data folder; see `refuse_older`.
            TransientError: a later attempt may succeed.
            PermanentError: the same attempt fails again.
        """

    def holding(
        self,
        hour: Hour,
        *,
        count: bool = False,
    ) -> Holding | None:
        """The ledger's row of an hour; None if the hour was never delivered.

        Args:
            hour: the hour.
            count: also count the rows that the destination holds.
        """

    def holdings(self) -> Mapping[Hour, Holding]:
        """Hour → its row of the ledger. Hours whose data was deleted by hand are missing.

        Thousands of hours cost a few requests in all, because no row is read. The loss of a part of
        an hour is not noticed here: `obs_assets.audit.verify` compares rows.

        Raises:
            TransientError: the destination does not answer.
        """

    def adopt(
        self,
        hour: Hour,
        held: Holding,
        version: InputVersion,
    ) -> None:
        """Change the version of an hour in the ledger, on purpose; the rows stay.

        Args:
            hour: which the ledger knows.
            held: the row that the ledger is expected to have.
            version: in the place of that version.

        Raises:
            HourBusyError: the ledger says something else by now.
        """

    def selected(self, frame: Frame) -> Frame:
        """The rows of an offered frame that the destination keeps, with ``event`` as it keeps it.

        A destination that keeps columns beside the event adds ``columns``: a JSON object of them.
        """

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """The stored rows, in any order: ``row_uid``, ``event`` without the fields that delivery added, and
        ``columns`` if `selected` gives it.

        ``event`` is empty if the destination keeps no single events.
        """

    def check(self) -> str:
        """Connect to the destination; returns its address as a line of text.

        Raises:
            ConfigurationError: it cannot be reached; the message names the setting to change.
        """
