"""Offers an hour to a destination, and writes the receipt of the delivery."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import duckdb

from obs_assets.delivery.kinds import asset_name, kind_of
from obs_assets.destinations.base import Delivery, DestinationConfig, Offer
from obs_assets.events import CONTENT_HASH, LINEAGE, PROMOTED, Frame, count_by
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour
from obs_assets.receipts import ALREADY_THERE, COST, LEVELS_BY_MINUTE, Receipt
from obs_assets.storage.engine import computing, connect_to_stream
from obs_assets.storage.frames import Store
from obs_assets.transforms.filter import apply_filter

_OFFERED = ", ".join([*LINEAGE, *PROMOTED, "weight", "event"])
"""Columns that are offered of a sampled frame."""

_OFFERED_WHOLE = ", ".join([*LINEAGE, *PROMOTED, "1.0::DOUBLE AS weight", "event"])
"""Columns that are offered of a frame without weights: each event stands for itself."""

STREAMED_FROM = 8 << 20
"""Bytes of a frame, about 20,000 events. A larger frame is streamed on a connection of its own."""


@dataclass(frozen=True)
class Deliverer:
    """Delivers hours of one pipeline; the caller holds the lock of the hour.

    Attributes:
        store: the frames and receipts.
        database: opens a cursor of the engine.
    """

    store: Store
    database: Callable[[], duckdb.DuckDBPyConnection]

    def deliver(
        self,
        config: DestinationConfig,
        send: Callable[[Offer], Delivery],
        hour: Hour,
        *,
        run_id: str,
        rebuild: bool,
        closed_until: Hour,
    ) -> Receipt:
        """Offer an hour to a destination.

        Args:
            config: block of the destination.
            send: writes the offered hour, for example `Destination.deliver` behind a breaker.
            hour: the hour to offer.
            run_id: id of the run, for the ledger.
            rebuild: the destination writes the hour even if it holds this version.
            closed_until: hours before it are closed.

        Raises:
            MissingFrameError: the frame for the destination has not been built.
            ObsError: the destination failed.
        """
        name = asset_name(config)
        with self._connect(f"{name} {hour}", config, hour) as connection:
            offer, filtered = self.offer(connection, config, hour)
            receipts = tuple(self._receipts(hour, up_to=config.stage))
            offer = replace(offer, run_id=run_id, rebuild=rebuild, receipts=receipts)
            delivery = send(replace(offer, closed_until=closed_until))
        # The receipt counts from the frame on, so events of the destination's filter are in it.
        other = dict(filtered)
        if delivery.already_there:
            other[ALREADY_THERE] = delivery.already_there
        receipt = Receipt(
            hour.key,
            name,
            offer.version,
            taken=offer.rows + sum(filtered.values()),
            kept=delivery.written,
            other={**other, **delivery.refused},
            details={
                "figures": dict(delivery.stats),
                **delivery.tables,
                **_levels_and_cost(receipts),
            },
            content_hash=offer.content_hash,
            size_bytes=delivery.size_bytes,
        )
        return self.store.write_receipt(receipt, hour)

    def offer(
        self, connection: duckdb.DuckDBPyConnection, config: DestinationConfig, hour: Hour
    ) -> tuple[Offer, dict[str, int]]:
        """The present offer of an hour, and reason → number of events that the destination's own filter drops."""
        receipt = self.store.read_receipt(config.stage, hour).check()
        whole = self.store.read_frame(connection, config.stage, hour)
        frame, judged = offered(connection, config, whole)
        offer = Offer(
            frame,
            hour,
            receipt.version,
            receipt.kept,
            receipt.content_hash,
        )
        if judged is None:
            return offer, {}
        kept = judged.filter("dropped_by IS NULL").project(_OFFERED)
        # The destination holds a part of the frame: number and hash of that part are compared.
        rows, content = kept.aggregate(f"count(*), {CONTENT_HASH}").fetchall()[0]
        filtered = count_by(judged, "dropped_by")
        return replace(offer, frame=kept, rows=rows, content_hash=content), filtered

    @contextmanager
    def _connect(
        self, work: str, config: DestinationConfig, hour: Hour
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor, or for a large frame a connection with a single thread, which needs half the memory."""
        path = self.store.frame_path(config.stage, hour)
        # Without a frame, the reading that follows raises the error that names the missing stage.
        is_large = path.exists() and path.stat().st_size > STREAMED_FROM
        if kind_of(config).streams and is_large:
            opened = connect_to_stream(self.store.temp_dir, path)
        else:
            opened = self.database()
        with opened as connection, computing(work, connection):
            yield connection

    def _receipts(self, hour: Hour, up_to: str) -> Iterator[Receipt]:
        """The receipts of an hour from the first stage to ``up_to``, without missing receipts."""
        for stage in STAGES:
            receipt = self.store.find_receipt(stage, hour)
            if receipt is not None:
                yield receipt
            if stage == up_to:
                return


def offered(
    connection: duckdb.DuckDBPyConnection, config: DestinationConfig, frame: Frame
) -> tuple[Frame, Frame | None]:
    """The frame of a destination's stage with the columns that are offered.

    Returns:
        all events, and the same with ``dropped_by`` of the destination's own filter; None without a
        filter.
    """
    columns = _OFFERED_WHOLE
    if config.from_ == "sampled":
        columns = _OFFERED
    whole = frame.project(columns)
    if config.filter is None or not config.filter.enabled:
        return whole, None
    return whole, apply_filter(connection, whole, config.filter)


def _levels_and_cost(receipts: Sequence[Receipt]) -> dict[str, Mapping[str, int | float | str]]:
    """Level counts and cost of the newest receipt: those of the frame that was offered."""
    if not receipts:
        return {}
    details = receipts[-1].details
    return {title: details[title] for title in (LEVELS_BY_MINUTE, COST) if title in details}
