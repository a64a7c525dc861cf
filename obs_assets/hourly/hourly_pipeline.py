"""The calls of the assets: land, build a stage's hour, deliver an hour. Without Dagster.

A stage reads the frame before it, applies a pure function, writes its own frame and then its receipt.
Every count of a receipt is read back from the written frame. The rules of a stage are in
`obs_assets.transforms`.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import duckdb

from obs_assets import embedded
from obs_assets.delivery.breaker import Breaker, Breakers, guarded
from obs_assets.delivery.failover import Failover, Notes, Side
from obs_assets.delivery.kinds import Order, asset_name, kind_of
from obs_assets.destinations.base import (
    Delivery,
    Destination,
    DestinationConfig,
    Holding,
    Offer,
)
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.build import Builder
from obs_assets.hourly.deliver import Deliverer
from obs_assets.hourly.expiry import expire, why_due
from obs_assets.hourly.locks import HourLocks
from obs_assets.hourly.pipeline import DEFAULT_PIPELINE, PipelineConfig
from obs_assets.hourly.stage_rows import Stage
from obs_assets.hourly.stages import SIZES, Sizes, Stages, Unredacted
from obs_assets.hourly.staleness import Staleness, find_staleness, state_of
from obs_assets.hours import Hour, first_open_hour, parse_hour, utc_now
from obs_assets.receipts import Receipt
from obs_assets.settings import PostgresSettings, S3Settings, Settings
from obs_assets.sources.files import Listing, SourceConfig, list_files
from obs_assets.sources.landing import LandingReport, land, note_unchanged
from obs_assets.sources.log import Landed, LandingLog
from obs_assets.sources.replay import count_letters, replay
from obs_assets.sources.retention import Expiry
from obs_assets.storage.engine import computing, connect
from obs_assets.storage.frames import Store
from obs_assets.transforms.redact import REDACTOR_FAILED

if TYPE_CHECKING:
    from obs_assets.delivery.outbox import WebhookAlerts
    from obs_assets.destinations.postgres import PostgresDestination


@dataclass(frozen=True)
class HourlyPipeline:
    """A pipeline bound to this machine's settings.

    Attributes:
        config: the pipeline's configuration.
        settings: the machine's data folder, servers and secrets.
        name: stored name of the pipeline: its folder below ``OBS_DATA_DIR/pipelines``.
        scratch: folder of the frames and receipts of a trial; a trial reads the landed events of
            the pipeline. None for the pipeline's own folder.
        sizes: how much of an hour is worked on at a time.
        clock: gives the time, UTC.
        off: name of each destination that is off → the environment variable that would turn it on.
    """

    config: PipelineConfig
    settings: Settings
    name: str = DEFAULT_PIPELINE
    scratch: Path | None = None
    sizes: Sizes = SIZES
    clock: Callable[[], datetime] = utc_now
    off: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A destination whose address is not set is off: it has no asset, and no hour is missing there.
        blocks = [
            block.model_copy(update={"enabled": block.enabled and not self._missing(block)})
            for block in self.config.destinations
        ]
        off = {
            asset_name(block): self._missing(block)
            for block in self.config.enabled_destinations
            if self._missing(block)
        }
        object.__setattr__(self, "off", off)
        if off:
            config = self.config.model_copy(update={"destinations": tuple(blocks)})
            object.__setattr__(self, "config", config)

    def _missing(self, block: DestinationConfig) -> str:
        return kind_of(block).missing(self.settings)

    @cached_property
    def store(self) -> Store:
        """The frames and receipts."""
        return Store(self.scratch or self._root)

    @cached_property
    def stages(self) -> Stages:
        """The stages, which compute the frames."""
        key = self.settings.hash_key
        hash_key = None
        if key:
            hash_key = key.get_secret_value().encode()
        return Stages(self.config, self.store, self.log, hash_key, self.sizes)

    @property
    def _root(self) -> Path:
        return self.settings.data_dir / "pipelines" / self.name

    @cached_property
    def log(self) -> LandingLog:
        """The landing log: files, hours and chunks that have landed."""
        # A trial reads the pipeline's own landed events, so this is not the scratch folder.
        return LandingLog(Store(self._root).landed_dir)

    # Landing

    @property
    def source(self) -> SourceConfig:
        """The source block; without ``events_dir``, with the folder ``events`` of the data folder if that exists."""
        folder = self.settings.data_dir / "events"
        if self.config.source.events_dir is not None or not folder.is_dir():
            return self.config.source
        return self.config.source.model_copy(update={"events_dir": folder})

    def land(self, now: datetime | None = None) -> LandingReport:
        """Land the new bytes of the event files.

        Args:
            now: time of the pass, UTC; the clock by default.
        """
        return land(
            self.source,
            self.log,
            first_hour=self.config.first_hour,
            now=now or self.clock(),
        )

    def landed(self) -> Landed:
        """The files and hours that have landed."""
        return self.log.load()

    def first_open_hour(self) -> Hour:
        """The oldest hour that is not closed; before the first landing pass, the pipeline's first hour."""
        watermark = self.log.looked_at()
        if watermark is None:
            return self.config.first_hour
        return first_open_hour(watermark, self.config.allowed_lateness)

    def first_partition(self, now: datetime) -> Hour:
        """The first hour that Dagster shows.

        It is ``start``; without ``start``, the first hour of the first day that has landed, which
        moves when older events land. Before anything has landed, it is the first hour of the day
        before ``now``.
        """
        if self.config.start:
            return self.config.first_hour
        first = now.astimezone(UTC) - timedelta(days=1)
        hours = self.landed().hours
        if hours:
            first = parse_hour(min(hours)).start
        return Hour(
            first.replace(
                hour=0,
                minute=0,
                second=0,
                microsecond=0,
            )
        )

    def pending_files(self, listing: Listing) -> str:
        """The numbers of files to land, for example ``2 new, 1 changed, 0 waiting of 9 files``.

        Empty if the last finished pass has seen this listing and no file waits.
        """
        last = self.log.looked()
        # A file that waits can be ready to land although it has not changed.
        if listing.digest == last.listing and not last.waiting:
            return ""
        known = {file.path: file for file in self.landed().files.values()}
        listed_before = [file for file in listing.files if file.path in known]
        new = len(listing.files) - len(listed_before)
        changed = sum(not known[file.path].is_unchanged(file) for file in listed_before)
        waiting, total = len(last.waiting), len(listing.files)
        return f"{new:,} new, {changed:,} changed, {waiting:,} waiting of {total:,} files"

    def listing(self) -> Listing:
        """The event files as they are now."""
        return list_files(self.source)

    def close_hours(self, listing: Listing, began_at: datetime) -> bool:
        """Close the hours that a landing pass without new bytes would close; see `note_unchanged`."""
        return note_unchanged(
            self.source, self.log, listing, began_at, first_hour=self.config.first_hour
        )

    def dead_letters(self) -> list[tuple[str, str, int, int, datetime]]:
        """Dead letters by file and reason, the largest number first.

        Returns:
            path of the file, reason, number of dead letters, their bytes, and the time of the first, UTC.
        """
        return count_letters(self.log)

    def replay(
        self,
        reason: str | None = None,
        event_file: str | None = None,
    ) -> LandingReport:
        """Land the dead letters that can be read now.

        Args:
            reason: only dead letters of this reason.
            event_file: only dead letters of this file.
        """
        return replay(
            self.source,
            self.log,
            first_hour=self.config.first_hour,
            reason=reason,
            event_file=event_file,
        )

    def unredacted_hours(self) -> dict[Hour, int]:
        """Hour, oldest first → number of its events that the redactor could not handle.

        The numbers come from the receipts.
        """
        hours: dict[Hour, int] = {}
        for path in sorted(self.store.receipt_dir("redacted_events").glob("*.json")):
            # A damaged receipt fails the check of its own hour.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                receipt = Receipt.from_json(path.read_text())
                failed = receipt.other.get(REDACTOR_FAILED, 0)
                if failed:
                    hours[parse_hour(receipt.hour)] = failed
        return hours

    def unredacted(self, hour: Hour) -> list[Unredacted]:
        """The events of an hour on which the redactor fails now, with their text before redaction.

        Raises:
            MissingFrameError: the enriched frame of the hour is missing or has expired.
        """
        with self._cursor() as connection, computing(f"redacted_events {hour}", connection):
            return self.stages.unredacted(connection, hour)

    def dropped(self, hour: Hour) -> dict[str, str]:
        """``row_uid`` → reason, of the redacted events of an hour that filter or sample drop now.

        Raises:
            MissingFrameError: ``redacted_events`` has not built the hour.
        """
        with self._cursor() as connection, computing(f"sampled_events {hour}", connection):
            return self.stages.dropped(connection, hour)

    def expire(self, now: datetime) -> Expiry:
        """Remove events before redaction that are older than ``retention_days``.

        Args:
            now: the time, UTC.

        Raises:
            HourBusyError: a landing pass is under way.
            ConfigurationError, TransientError: the event files cannot be listed; nothing is removed.
        """
        days = self.config.retention_days
        if days is None:
            return Expiry()
        return expire(
            self.log,
            self.store,
            self.locks,
            days=days,
            now=now,
            staleness=self.staleness(now),
            open_hour=self.first_open_hour(),
            listing=self.listing(),
        )

    def expiry_due(self, now: datetime) -> str:
        """The reason to call `expire` now, in a few words; empty without a reason. Nothing is changed.

        Raises:
            ConfigurationError, TransientError: the event files cannot be listed.
        """
        days = self.config.retention_days
        if days is None:
            return ""
        return why_due(
            self.log,
            days=days,
            now=now,
            staleness=self.staleness(now),
            open_hour=self.first_open_hour(),
            listing=self.listing(),
        )

    def needs_build(self, hour: Hour) -> bool:
        """Whether an hour is stale at a destination, and at no destination from another data folder.

        Destinations whose breaker is not closed are not asked; `staleness` finds their hours later.

        Raises:
            TransientError: a destination does not answer.
        """
        landed = self.landed().version(hour)
        states = set()
        resting = self.resting(self.clock())
        for block in self.config.enabled_destinations:
            name = asset_name(block)
            failover = self.failover(name)
            if failover:
                held = self.holdings(name).get(hour)
            elif name in resting:
                continue
            else:
                held = self.destination(name).holding(hour)
            states.add(state_of(self.config, block, held, landed))
        # A build delivers to every destination, and must not replace the hour of another folder.
        return "stale" in states and "elsewhere" not in states

    def staleness(
        self,
        now: datetime | None = None,
        *,
        empty: Iterable[Hour] = (),
    ) -> "Staleness":
        """Closed hours that destinations lack or hold in an older version, see `find_staleness`.

        Args:
            now: the time, UTC; the clock by default.
            empty: hours without events that destinations hold nevertheless.
        """
        now = now or self.clock()
        found = find_staleness(
            self.config,
            self.landed(),
            self.holdings,
            open_hour=self.first_open_hour(),
            now=now,
            empty=empty,
        )
        failovers = self._failovers()
        return replace(
            found,
            resting=self.resting(now),
            probed=self._probed(now),
            covered=frozenset(
                name for name, failover in failovers.items() if failover.is_taking_over()
            ),
            lent={name: frozenset(each.notes.hours()) for name, each in failovers.items()},
        )

    # Stages

    def build(self, stage: Stage, hour: Hour) -> Receipt:
        """Build a stage's hour anew from the frame before it.

        Raises:
            MissingFrameError: the stage before has not built the hour.
            HourExpiredError: the landed events have expired; the present frames stay as they are.
            ReceiptError: the counts of the stage before do not add up.
        """
        return self._builder.build(stage, hour)

    def build_together(
        self,
        stage: Stage,
        hours: Sequence[Hour],
    ) -> dict[Hour, Receipt]:
        """Build small hours of a stage in one query, see `Builder.build_together`."""
        return self._builder.build_together(stage, hours)

    @cached_property
    def _builder(self) -> Builder:
        return Builder(
            self.config,
            self.store,
            self.log,
            self.locks,
            self.stages,
            self._cursor,
            self.destination_names,
        )

    @cached_property
    def locks(self) -> HourLocks:
        """The locks of the hours' frames."""
        return HourLocks(self.store.root / "locks")

    @cached_property
    def database(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection whose cursors compute the frames.

        It is kept, because opening a connection takes a fifth of the time of a small hour.
        """
        return connect(self.store.temp_dir, memory_limit=self.sizes.memory)

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        return self.database.cursor()

    # Destinations

    def deliver(
        self,
        name: str,
        hour: Hour,
        *,
        run_id: str = "",
        rebuild: bool = False,
        client: Any = None,
    ) -> Receipt:
        """Offer an hour to the destination whose asset has this name.

        Args:
            name: name of the destination's asset, for example ``postgres_events``.
            hour: the hour to deliver.
            run_id: id of the run, for the ledger.
            rebuild: write the hour even if the destination holds this version.
            client: client of the destination's server; by default the destination makes its own.

        Raises:
            MissingFrameError: the frame for the destination has not been built.
            ObsError: the destination failed.
        """
        config = self.destination_config(name)
        # Shared: several destinations read the frame at a time, and no build replaces it meanwhile.
        with self.locks.hold(hour, alone=False):
            destination = self._make(config, client) if client else self.destination(name)
            closed_until = self._closed_until(hour)
            return self._deliverer.deliver(
                config,
                self._sender(config, destination),
                hour,
                run_id=run_id,
                rebuild=rebuild,
                closed_until=closed_until,
            )

    def _sender(
        self, config: DestinationConfig, destination: Destination
    ) -> Callable[[Offer], Delivery]:
        """Offers an hour to a destination, behind its breaker."""
        failover = self.failover(asset_name(config), destination)
        if failover:
            return failover.deliver
        if kind_of(config).alerts:
            # Its deliveries go into an outbox; the requests of the outbox have a breaker.
            return destination.deliver
        return guarded(destination.deliver, self.breaker(asset_name(config)), self.clock)

    def failover(self, name: str, destination: Destination | None = None) -> Failover | None:
        """The failover of a destination; None if its block has none.

        Args:
            name: name of the destination's asset.
            destination: the destination, if the caller has made it.
        """
        config = self.destination_config(name)
        if config.failover is None:
            return None
        spare = config.failover.to
        return Failover(
            Side(name, destination or self.destination(name), self.breaker(name)),
            Side(spare, self.destination(spare), self.breaker(spare)),
            timedelta(minutes=config.failover.after_minutes),
            config.failover.hand_back,
            Notes(self._root / "failover" / name, spare),
            self.clock,
        )

    def _failovers(self) -> dict[str, Failover]:
        """Asset name → failover, of the enabled destinations that have a failover."""
        found = {name: self.failover(name) for name in self.destination_names}
        return {name: failover for name, failover in found.items() if failover}

    def holdings(self, name: str) -> Mapping[Hour, Holding]:
        """Hour → its version at a destination, of the hours that need no delivery now.

        Raises:
            TransientError: the destination does not answer.
        """
        failover = self.failover(name)
        if failover is None:
            return self.destination(name).holdings()
        return failover.holdings(lambda: self._delivered(name))

    def _delivered(self, name: str) -> dict[Hour, Holding]:
        """Hour → version, by the receipts of a destination's deliveries."""
        found: dict[Hour, Holding] = {}
        for path in self.store.receipt_dir(name).glob("*.json"):
            # A damaged receipt fails the check of its own hour.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                receipt = Receipt.from_json(path.read_text())
                held = Holding(receipt.version, receipt.kept, receipt.content_hash)
                found[parse_hour(receipt.hour)] = held
        return found

    def holder(self, name: str, hour: Hour) -> str:
        """Name of the destination that holds an hour of a destination: its secondary, or the name itself."""
        failover = self.failover(name)
        return failover.holder(hour).name if failover else name

    def breaker(self, name: str) -> Breaker:
        """The breaker of a destination, or of the address that its outbox sends to.

        Args:
            name: name of the destination's asset.
        """
        config = self.destination_config(name)
        breakers = Breakers(self.settings.data_dir / "breakers")
        address = kind_of(config).address(config, self.settings)
        if address:
            return breakers.of_address(name, address)
        return breakers.of_destination(self.ledger_name(name))

    def resting(self, now: datetime) -> dict[str, str]:
        """Name of each destination and spare whose breaker is not closed → since when and why.

        Args:
            now: the time, UTC.
        """
        failovers = [block.failover for block in self.config.enabled_destinations]
        spares = [failover.to for failover in failovers if failover]
        sentences = {
            name: self.breaker(name).state().sentence(now)
            for name in (*self.destination_names, *spares)
        }
        return {name: sentence for name, sentence in sentences.items() if sentence}

    def _probed(self, now: datetime) -> frozenset[str]:
        stages = {
            name: self.breaker(name).state().stage(now) for name in self.destination_names
        }
        return frozenset(name for name, stage in stages.items() if stage == "half open")

    def offer(
        self,
        connection: duckdb.DuckDBPyConnection,
        name: str,
        hour: Hour,
    ) -> Offer:
        """An hour as it would be offered to a destination now."""
        config = self.destination_config(name)
        offer, _ = self._deliverer.offer(connection, config, hour)
        return offer

    @cached_property
    def _deliverer(self) -> Deliverer:
        return Deliverer(self.store, self._cursor)

    def destination_config(self, name: str) -> DestinationConfig:
        """The block of the destination whose asset has this name.

        Raises:
            ConfigurationError: no destination has this name.
        """
        for config in self.config.destinations:
            if asset_name(config) == name:
                return config
        known = ", ".join(map(asset_name, self.config.destinations))
        raise ConfigurationError(f"no destination is called {name!r}; there are {known}")

    def destination(self, name: str) -> Destination:
        """The destination of that name; an embedded server that it needs is started.

        The destination is kept, since its clients are costly, until its server has another address:
        an embedded server can have another port after a restart.
        """
        config = self.destination_config(name)
        server = self._server_of(config)
        kept = self._destinations.get(name)
        if kept is None or kept[0] != server:
            kept = self._destinations[name] = (server, self._make(config))
        return kept[1]

    @cached_property
    def _destinations(self) -> dict[str, tuple[Any, Destination]]:
        return {}

    def _server_of(self, config: DestinationConfig) -> Any:
        """Settings of the server that a destination needs; None if it needs no server."""
        server = kind_of(config).server_of(config)
        if server is None:
            return None
        return server.find(self.settings)

    def _make(self, config: DestinationConfig, client: Any = None) -> Destination:
        ledger_name = self.ledger_name(asset_name(config))
        order = Order(
            config,
            self._server_of(config),
            self.settings,
            ledger_name,
            client,
            self.clock,
        )
        return kind_of(config).make(order)

    def command(self, command: str) -> str:
        """A command for this pipeline: ``obs land`` → ``obs land --pipeline audit``."""
        if self.name == DEFAULT_PIPELINE:
            return command
        return f"{command} --pipeline {self.name}"

    def ledger_name(self, name: str) -> str:
        """The name of a destination in a ledger that several pipelines share."""
        # A pipeline without a prefix has its data and its rows in ledgers under bare names.
        if self.name == DEFAULT_PIPELINE:
            return name
        return f"{self.name}.{name}"

    def _closed_until(self, hour: Hour) -> Hour:
        """The first open hour; before the first finished landing pass, the given hour counts as open."""
        if self.log.looked_at():
            return self.first_open_hour()
        return hour

    def dispatch_alerts(self) -> dict[str, dict[str, int | float]]:
        """Judge closed hours and hours without events, and send the dispatches that are due.

        Returns:
            ledger name of a destination → counts of its dispatches.
        """
        is_empty = self._is_empty_now()
        closed_until = self.first_open_hour()
        counts = {}
        for outbox in self.outboxes().values():
            counts[outbox.name] = dict(outbox.dispatch(closed_until, is_empty))
        return counts

    def dispatch_due(self, until: datetime) -> str:
        """The reason to call `dispatch_alerts`, in a few words; empty without a reason. Nothing is changed.

        Args:
            until: hours that can close only after this time count as open.
        """
        is_empty = self._is_empty_now()
        closes_first = first_open_hour(until, self.config.allowed_lateness)
        closed_until = min(self.first_open_hour(), closes_first)
        for outbox in self.outboxes().values():
            reason = outbox.due(closed_until, is_empty)
            if reason:
                return reason
        return ""

    def _is_empty_now(self) -> Callable[[Hour], bool]:
        """A function that says whether no event of an hour has landed."""
        landed = self.landed()
        return lambda hour: landed.hour(hour).generation == 0

    def outboxes(self) -> "dict[str, WebhookAlerts]":
        """Asset's name → the destination, for enabled destinations that judge alert rules and keep dispatches."""
        return {name: self.outbox(name) for name in self._names_of("alerts")}

    def outbox(self, name: str) -> "WebhookAlerts":
        """The destination of that name, which judges alert rules and keeps dispatches."""
        return cast("WebhookAlerts", self.destination(name))

    def tables(self) -> "dict[str, PostgresDestination]":
        """Asset's name → the destination, for enabled destinations that keep tables of events."""
        names = self._names_of("has_tables")
        return {name: cast("PostgresDestination", self.destination(name)) for name in names}

    def searched_table(self) -> "PostgresDestination":
        """The first table of events, which searches read.

        Raises:
            ConfigurationError: the pipeline has none.
        """
        for table in self.tables().values():
            return table
        raise ConfigurationError(
            "the pipeline has no destination of type postgres that is enabled: nothing can be searched"
        )

    def _names_of(self, ability: str) -> list[str]:
        return [asset_name(config) for config in self.enabled(ability)]

    def enabled(self, ability: str) -> list[DestinationConfig]:
        """The enabled destinations whose kind has an ability.

        Args:
            ability: name of an attribute of `Kind` that must be true, for example ``keeps_events``.
        """
        configs = self.config.enabled_destinations
        return [config for config in configs if getattr(kind_of(config), ability)]

    @property
    def destination_names(self) -> list[str]:
        """Asset names of the enabled destinations."""
        return [asset_name(config) for config in self.config.enabled_destinations]

    @property
    def postgres(self) -> PostgresSettings:
        """The PostgreSQL server of the environment, else the embedded server, which is started if it does not run."""
        settings: PostgresSettings = embedded.POSTGRES.find(self.settings)
        return settings

    @property
    def s3(self) -> S3Settings:
        """The S3 server of the environment, else the embedded server, which is started if it does not run."""
        settings: S3Settings = embedded.S3.find(self.settings)
        return settings
