"""One hour, stage by stage: what each asset calls. No Dagster here, and no rule of any stage: those have modules.

A stage reads the frame before it, applies one pure function, writes its own frame and then its receipt. Nothing is
counted that was not read back from what was written.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import duckdb

from obs_assets import embedded
from obs_assets.delivery.kinds import Order, asset_name, kind_of
from obs_assets.destinations.base import Destination, DestinationConfig, Offer
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.build import Builder
from obs_assets.hourly.deliver import Deliverer
from obs_assets.hourly.expiry import expire, why_due
from obs_assets.hourly.locks import HourLocks
from obs_assets.hourly.pipeline import DEFAULT_PIPELINE, PipelineConfig
from obs_assets.hourly.stage_rows import Stage
from obs_assets.hourly.stages import Stages, Unredacted
from obs_assets.hourly.staleness import Staleness, find_staleness, is_current
from obs_assets.hours import Hour, first_open_hour, parse_hour
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
        config: what happens to events.
        settings: where data lies and how servers are reached.
        name: of the pipeline; its folder below the data dir.
        scratch: where frames and receipts lie instead, for a trial; what has landed is the pipeline's.
    """

    config: PipelineConfig
    settings: Settings
    name: str = DEFAULT_PIPELINE
    scratch: Path | None = None

    @cached_property
    def store(self) -> Store:
        """The frames and receipts."""
        return Store(self.scratch or self._root)

    @cached_property
    def stages(self) -> Stages:
        """What makes frames."""
        key = self.settings.hash_key
        return Stages(
            self.config, self.store, self.log, key.get_secret_value().encode() if key else None
        )

    @property
    def _root(self) -> Path:
        return self.settings.data_dir / "pipelines" / self.name

    @cached_property
    def log(self) -> LandingLog:
        """What has landed."""
        return LandingLog(Store(self._root).landed_dir)

    # Landing

    @property
    def source(self) -> SourceConfig:
        """Where event files are: as configured, else the folder ``events`` of the data folder, if there is one."""
        folder = self.settings.data_dir / "events"
        if self.config.source.events_dir is not None or not folder.is_dir():
            return self.config.source
        return self.config.source.model_copy(update={"events_dir": folder})

    def land(self, now: datetime | None = None) -> LandingReport:
        """Land what is new in the event files; ``now`` is the clock by default."""
        return land(self.source, self.log, first_hour=self.config.first_hour, now=now)

    def landed(self) -> Landed:
        """All that has landed."""
        return self.log.load()

    def first_open_hour(self) -> Hour:
        """The oldest hour that is not closed; the pipeline's first before anything was landed."""
        looked_at = self.log.looked_at()
        return (
            first_open_hour(looked_at, self.config.allowed_lateness)
            if looked_at
            else self.config.first_hour
        )

    def first_partition(self, now: datetime) -> Hour:
        """The first hour that Dagster shows: ``start``; without it the beginning of the first day that has landed.

        It moves when older events land. Before anything has landed it is the beginning of the day before ``now``.
        """
        if self.config.start:
            return self.config.first_hour
        hours = self.landed().hours
        first = (
            parse_hour(min(hours)).start if hours else now.astimezone(UTC) - timedelta(days=1)
        )
        return Hour(first.replace(hour=0, minute=0, second=0, microsecond=0))

    def news(self, listing: Listing) -> str:
        """What there is to land, in a few words; empty if the last pass that finished has seen and taken it all."""
        looked = self.log.looked()
        if listing.digest == looked.listing and not looked.waiting:
            return ""
        known = {file.path: file for file in self.landed().files.values()}
        new = sum(file.path not in known for file in listing.files)
        changed = sum(
            file.path in known and not known[file.path].is_unchanged(file)
            for file in listing.files
        )
        return f"{new:,} new, {changed:,} changed, {len(looked.waiting):,} waiting of {len(listing.files):,} files"

    def listing(self) -> Listing:
        """The event files as they are now."""
        return list_files(self.source)

    def close_hours(self, listing: Listing, began_at: datetime) -> bool:
        """Close the hours that a landing pass would close, if it would read nothing; see `note_unchanged`."""
        return note_unchanged(
            self.source, self.log, listing, began_at, first_hour=self.config.first_hour
        )

    def dead_letters(self) -> list[tuple[str, str, int, int, datetime]]:
        """What could not be read: file, reason, letters, bytes, first seen; most letters first."""
        return count_letters(self.log)

    def replay(self, reason: str | None = None, event_file: str | None = None) -> LandingReport:
        """Land those dead letters that can be read now."""
        source, first_hour = self.source, self.config.first_hour
        return replay(
            source, self.log, first_hour=first_hour, reason=reason, event_file=event_file
        )

    def unredacted_hours(self) -> dict[Hour, int]:
        """Hours with events that the redactor could not handle, oldest first, and their number.

        The receipts say so. A damaged receipt fails the check of its own hour.
        """
        hours: dict[Hour, int] = {}
        for path in sorted(self.store.receipt_dir("redacted_events").glob("*.json")):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                receipt = Receipt.from_json(path.read_text())
                if failed := receipt.other.get(REDACTOR_FAILED, 0):
                    hours[parse_hour(receipt.hour)] = failed
        return hours

    def unredacted(self, hour: Hour) -> list[Unredacted]:
        """The events of an hour on which the redactor fails now, with their text as it was.

        Raises:
            MissingFrameError: what the hour was redacted from is kept no longer.
        """
        with self._cursor() as connection, computing(f"redacted_events {hour}", connection):
            return self.stages.unredacted(connection, hour)

    def expire(self, now: datetime) -> Expiry:
        """Remove what is not redacted and kept long enough; ``retention_days`` says how long that is.

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
        """Why `expire` is needed now, in a few words, empty if it is not; a look, nothing is changed.

        Raises:
            ConfigurationError, TransientError: the event files cannot be listed.
        """
        days = self.config.retention_days
        if days is None:
            return ""
        open_hour, staleness, listing = (
            self.first_open_hour(),
            self.staleness(now),
            self.listing(),
        )
        return why_due(
            self.log,
            days=days,
            now=now,
            staleness=staleness,
            open_hour=open_hour,
            listing=listing,
        )

    def is_current(self, hour: Hour) -> bool:
        """Whether every destination's ledger says that it holds all that has landed for an hour.

        Raises:
            TransientError: a destination cannot be asked.
        """
        generation = self.landed().hour(hour).generation
        for config in self.config.enabled_destinations:
            held = self.destination(asset_name(config)).holding(hour)
            if not is_current(self.config, config, held, generation):
                return False
        return True

    def staleness(
        self, now: datetime | None = None, *, empty: Iterable[Hour] = ()
    ) -> "Staleness":
        """Closed hours that destinations do not hold as they have landed; ``now`` is the clock by default."""
        return find_staleness(
            self.config,
            self.landed(),
            self.destination,
            open_hour=self.first_open_hour(),
            now=now or datetime.now(UTC),
            empty=empty,
        )

    # Stages

    def build(self, stage: Stage, hour: Hour) -> Receipt:
        """Build a stage's hour anew from the frame before it.

        Raises:
            MissingFrameError: the stage before has not built the hour.
            HourExpiredError: what it would be built from is kept no longer; what there is stays as it is.
            ReceiptError: the counts of the stage before do not add up.
        """
        return self._builder.build(stage, hour)

    def build_together(self, stage: Stage, hours: Sequence[Hour]) -> dict[Hour, Receipt]:
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
        """Where frames are computed, by cursors of it: to open one takes a fifth of the time of a small hour."""
        return connect(self.store.temp_dir)

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
            name: of the asset.
            hour: to be offered.
            run_id: goes into the ledger.
            rebuild: take it even if nothing is new.
            client: reaches the destination's server instead of a client of the destination's own.

        Raises:
            MissingFrameError: the frame that it takes has not been built.
            ObsError: what the destination says.
        """
        config = self.destination_config(name)
        with self.locks.hold(hour, alone=False):
            destination = self._made(config, client) if client else self.destination(name)
            closed_until = self._closed_until(hour)
            return self._deliverer.deliver(
                config,
                destination,
                hour,
                run_id=run_id,
                rebuild=rebuild,
                closed_until=closed_until,
            )

    def offer(self, connection: duckdb.DuckDBPyConnection, name: str, hour: Hour) -> Offer:
        """An hour as it would be offered to a destination now."""
        return self._deliverer.offer(connection, self.destination_config(name), hour)[0]

    @cached_property
    def _deliverer(self) -> Deliverer:
        return Deliverer(self.store, self._cursor)

    def destination_config(self, name: str) -> DestinationConfig:
        """The block of the destination whose asset has this name.

        Raises:
            ConfigurationError: there is none.
        """
        for config in self.config.destinations:
            if asset_name(config) == name:
                return config
        known = ", ".join(map(asset_name, self.config.destinations))
        raise ConfigurationError(f"no destination is called {name!r}; there are {known}")

    def destination(self, name: str) -> Destination:
        """The destination, its server started if it is an embedded one.

        Kept, since its clients are costly, for as long as its server stays where it is: an embedded one that had to be
        started again may have moved to another port.
        """
        config = self.destination_config(name)
        server = self._server_of(config)
        kept = self._destinations.get(name)
        if kept is None or kept[0] != server:
            kept = self._destinations[name] = (server, self._made(config))
        return kept[1]

    @cached_property
    def _destinations(self) -> dict[str, tuple[Any, Destination]]:
        return {}

    def _server_of(self, config: DestinationConfig) -> Any:
        """How the server of a destination is reached now; None where it needs no server."""
        server = kind_of(config).server_of(config)
        return server.find(self.settings) if server else None

    def _made(self, config: DestinationConfig, client: Any = None) -> Destination:
        ledger_name = self.ledger_name(asset_name(config))
        order = Order(config, self._server_of(config), self.settings, ledger_name, client)
        return kind_of(config).make(order)

    def ledger_name(self, name: str) -> str:
        """What a destination calls itself where several pipelines keep their ledgers."""
        return name if self.name == DEFAULT_PIPELINE else f"{self.name}.{name}"

    def _closed_until(self, hour: Hour) -> Hour:
        """The first open hour; an hour that is built before any landing pass is finished counts as open."""
        return self.first_open_hour() if self.log.looked_at() else hour

    def dispatch_alerts(self) -> dict[str, dict[str, int | float]]:
        """Judge hours that have closed or in which nothing happened, and send what is due; counts by destination."""
        landed = self.landed()
        closed_until = self.first_open_hour()
        return {
            outbox.name: dict(
                outbox.dispatch(closed_until, lambda hour: landed.hour(hour).generation == 0)
            )
            for outbox in self.outboxes().values()
        }

    def dispatch_due(self, until: datetime) -> str:
        """Why `dispatch_alerts` is needed, in a few words, empty if it is not; a look, nothing is changed.

        Args:
            until: hours that could close later count as open.
        """
        landed = self.landed()
        closed_until = min(
            self.first_open_hour(), first_open_hour(until, self.config.allowed_lateness)
        )
        for outbox in self.outboxes().values():
            if reason := outbox.due(
                closed_until, lambda hour: landed.hour(hour).generation == 0
            ):
                return reason
        return ""

    def outboxes(self) -> "dict[str, WebhookAlerts]":
        """Asset's name → the enabled destination, of those that judge alert rules and keep dispatches."""
        return {
            asset_name(config): self.outbox(asset_name(config))
            for config in self.enabled("alerts")
        }

    def outbox(self, name: str) -> "WebhookAlerts":
        """The destination of that name, of those that judge alert rules and keep dispatches."""
        return cast("WebhookAlerts", self.destination(name))

    def tables(self) -> "dict[str, PostgresDestination]":
        """Asset's name → the enabled destination, of those that keep tables of events."""
        return {
            asset_name(config): self._destination(config)
            for config in self.enabled("has_tables")
        }

    def _destination(self, config: DestinationConfig) -> Any:
        return self.destination(asset_name(config))

    def enabled(self, ability: str) -> list[DestinationConfig]:
        """The enabled destinations whose kind has an ability: an attribute of `Kind` that is true."""
        configs = self.config.enabled_destinations
        return [config for config in configs if getattr(kind_of(config), ability)]

    @property
    def destination_names(self) -> list[str]:
        """The assets' names of the enabled destinations."""
        return [asset_name(config) for config in self.config.enabled_destinations]

    @property
    def postgres(self) -> PostgresSettings:
        """The PostgreSQL server: the environment's, else the embedded one, started if it does not run."""
        settings: PostgresSettings = embedded.POSTGRES.find(self.settings)
        return settings

    @property
    def s3(self) -> S3Settings:
        """The S3 server: the environment's, else the embedded one, started if it does not run."""
        settings: S3Settings = embedded.S3.find(self.settings)
        return settings
