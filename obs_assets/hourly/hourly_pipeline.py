"""One hour, stage by stage: what each asset calls. No Dagster here, and no rule of any stage: those have modules.

A stage reads the frame before it, applies one pure function, writes its own frame and then its receipt. Nothing is
counted that was not read back from what was written.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import duckdb
import tenacity

from obs_assets import embedded
from obs_assets.delivery.kinds import Order, asset_name, kind_of
from obs_assets.destinations.base import Destination, DestinationConfig, Holding, Offer
from obs_assets.errors import (
    ConfigurationError,
    HourBusyError,
    HourExpiredError,
    ObsError,
    PermanentError,
    TransientError,
)
from obs_assets.events import CONTENT_HASH, LINEAGE, PROMOTED, count_by
from obs_assets.hourly.pipeline import DEFAULT_PIPELINE, STAGES, PipelineConfig, Stage
from obs_assets.hourly.stages import Stages
from obs_assets.hours import Hour, first_open_hour, parse_hour
from obs_assets.receipts import COST, LEVELS_BY_MINUTE, Receipt
from obs_assets.settings import PostgresSettings, S3Settings, Settings
from obs_assets.sources.files import Listing, SourceConfig, list_files
from obs_assets.sources.landing import LandingReport, land
from obs_assets.sources.log import Landed, LandingLog
from obs_assets.sources.replay import count_letters, replay
from obs_assets.sources.retention import Expiry, due, forgettable, note_expiry, remove_chunks, remove_letters
from obs_assets.storage.frames import Store, connect, connect_to_stream, make_private_dir, told_by_arrow
from obs_assets.transforms.filter import judge
from obs_assets.transforms.functions import failure_in

if TYPE_CHECKING:
    from obs_assets.delivery.outbox import WebhookAlerts
    from obs_assets.destinations.postgres import PostgresDestination

_OFFERED, _OFFERED_WHOLE = (
    ", ".join([*LINEAGE, *PROMOTED, weight, "event"]) for weight in ("weight", "1.0::DOUBLE AS weight")
)

UNREDACTED = STAGES[:2]
"""Stages whose frames hold events as they were."""

STREAMED_FROM = 8 << 20
"""Bytes of a frame from which on it is streamed to an archive on a connection of its own: about 20,000 events."""

BUSY_AFTER_S = 30
"""How long to wait for another run that is at work on the same hour."""


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(BlockingIOError),
    wait=tenacity.wait_random(0.02, 0.2),
    stop=tenacity.stop_after_delay(BUSY_AFTER_S),
    reraise=True,
)
def _lock(handle: IO[str], operation: int) -> None:
    flock(handle, operation | LOCK_NB)


def _looks(receipts: Sequence[Receipt]) -> dict[str, Mapping[str, int | float | str]]:
    """What the last of these receipts says of the look of its hour, for who takes its frame."""
    details = receipts[-1].details if receipts else {}
    return {title: details[title] for title in (LEVELS_BY_MINUTE, COST) if title in details}


@dataclass(frozen=True)
class Staleness:
    """Closed hours that destinations do not hold as they have landed.

    Attributes:
        missing: hour, oldest first → the assets' names of the destinations that lack it.
        unreachable: asset's name → why that destination could not be asked; of its hours nothing is known.
    """

    missing: Mapping[Hour, tuple[str, ...]]
    unreachable: Mapping[str, str]

    @property
    def hours(self) -> list[Hour]:
        """The hours, oldest first."""
        return list(self.missing)


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
        return Stages(self.config, self.store, self.log, key.get_secret_value().encode() if key else None)

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
        return first_open_hour(looked_at, self.config.allowed_lateness) if looked_at else self.config.first_hour

    def news(self, listing: Listing) -> str:
        """What there is to land, in a few words; empty if the last pass that finished has seen and taken it all."""
        looked = self.log.looked()
        if listing.digest == looked.listing and not looked.waiting:
            return ""
        known = {file.path: file for file in self.landed().files.values()}
        new = sum(file.path not in known for file in listing.files)
        changed = sum(file.path in known and not known[file.path].is_unchanged(file) for file in listing.files)
        return f"{new:,} new, {changed:,} changed, {len(looked.waiting):,} waiting of {len(listing.files):,} files"

    def listing(self) -> Listing:
        """The event files as they are now."""
        return list_files(self.source)

    def dead_letters(self) -> list[tuple[str, str, int, int, datetime]]:
        """What could not be read: file, reason, letters, bytes, first seen; most letters first."""
        return count_letters(self.log)

    def replay(self, reason: str | None = None, event_file: str | None = None) -> LandingReport:
        """Land those dead letters that can be read now."""
        source, first_hour = self.source, self.config.first_hour
        return replay(source, self.log, first_hour=first_hour, reason=reason, event_file=event_file)

    def expire(self, now: datetime) -> Expiry:
        """Remove what is not redacted and kept long enough; ``retention_days`` says how long that is.

        Raises:
            HourBusyError: a landing pass is under way.
            ConfigurationError, TransientError: the event files cannot be listed; nothing is removed.
        """
        days = self.config.retention_days
        if days is None:
            return Expiry()
        hours = due(self.landed(), days=days, now=now)
        staleness, open_hour = self.staleness(now), self.first_open_hour()
        held_back = set(hours) if staleness.unreachable else set(staleness.missing)
        ready = [(hour, seen) for hour, seen in hours.items() if hour < open_hour and hour not in held_back]
        waiting = tuple(hour for hour in hours if hour in held_back or hour >= open_hour)
        listed = {name for file in self.listing().files for name in (file.path, file.node)}
        with self.log.lock():
            files = () if waiting else forgettable(self.landed(), listed, days=days, now=now)
            expired = note_expiry(self.log, ready, files, days=days, now=now)
            letters, size = remove_letters(self.log, days=days, now=now)
            size += remove_chunks(self.log)
            self.log.remove_folded()
        size += sum(
            self._remove_unredacted(parse_hour(key)) for key, hour in self.landed().hours.items() if hour.expired
        )
        return Expiry(tuple(expired), waiting, len(files), letters, size)

    def _remove_unredacted(self, hour: Hour) -> int:
        """Remove the raw and the enriched frame of an hour that has expired; returns their bytes."""
        paths = [path for stage in UNREDACTED if (path := self.store.frame_path(stage, hour)).exists()]
        if not paths:
            return 0
        try:
            with self._hold(hour, alone=True):
                size = sum(path.stat().st_size for path in paths)
                for path in paths:
                    path.unlink()
                return size
        except HourBusyError:
            return 0  # somebody reads it: the next run removes it

    def is_current(self, hour: Hour) -> bool:
        """Whether every destination's ledger says that it holds all that has landed for an hour.

        Raises:
            TransientError: a destination cannot be asked.
        """
        generation = self.landed().hour(hour).generation
        return all(
            self._is_current(config, self.destination(asset_name(config)).holding(hour), generation)
            for config in self.config.enabled_destinations
        )

    def stale_hours(self) -> list[Hour]:
        """Closed hours that some destination does not hold as they have landed, oldest first.

        Raises:
            TransientError: a destination cannot be asked.
        """
        staleness = self.staleness()
        for problem in staleness.unreachable.values():
            raise TransientError(problem)
        return staleness.hours

    def staleness(self, now: datetime | None = None, *, empty: Iterable[Hour] = ()) -> "Staleness":
        """What the destinations do not hold of what has landed, by their own ledgers: a few requests to each.

        What has expired by ``now``, the clock by default, and is gone stays away; while it is held, it is kept current.
        An hour whose landed events are kept no longer cannot be built again, and is not asked for.

        Args:
            now: the time.
            empty: hours that are to be held although nothing has landed for them.
        """
        now = now or datetime.now(UTC)
        open_hour = self.first_open_hour()
        landed = {parse_hour(key): one for key, one in self.landed().hours.items()}
        wanted = dict.fromkeys(empty, 0) | {hour: one.generation for hour, one in landed.items()}
        expired = {hour for hour, one in landed.items() if one.expired}
        closed = {hour: wanted[hour] for hour in wanted if hour < open_hour and hour not in expired}
        missing: dict[Hour, list[str]] = {}
        unreachable: dict[str, str] = {}
        for config in self.config.enabled_destinations:
            name = asset_name(config)
            try:
                held = self.destination(name).holdings()
            except ObsError as error:
                unreachable[name] = str(error)
                continue
            for hour, generation in closed.items():
                gone = hour not in held and config.has_expired(hour, now)
                if not gone and not self._is_current(config, held.get(hour), generation):
                    missing.setdefault(hour, []).append(name)
        return Staleness({hour: tuple(missing[hour]) for hour in sorted(missing)}, unreachable)

    def _is_current(self, config: DestinationConfig, held: Holding | None, generation: int) -> bool:
        if held is None or held.version.generation < generation:
            return False
        if self.config.on_config_change == "mark":
            return True
        return replace(held.version, generation=0) == self.config.version(config.stage, 0)

    # Stages

    def build(self, stage: Stage, hour: Hour) -> Receipt:
        """Build a stage's hour anew from the frame before it.

        Raises:
            MissingFrameError: the stage before has not built the hour.
            HourExpiredError: what it would be built from is kept no longer; what there is stays as it is.
            ReceiptError: the counts of the stage before do not add up.
        """
        with self._hold(hour, alone=True), self._connect(f"{stage} {hour}") as connection:
            self._prepare(stage, hour)
            receipt = self.stages.build(connection, stage, {hour: self.stages.given(stage, hour)})[hour]
            return self.store.write_receipt(receipt, hour)

    def build_together(self, stage: Stage, hours: Sequence[Hour]) -> dict[Hour, Receipt]:
        """Build small hours of a stage anew, all in one go, which takes little longer than one of them.

        Returns:
            the receipts of those that were built. The others have to be built alone: that says what is wrong with them.
        """
        receipts: dict[Hour, Receipt] = {}
        if not self.stages.takes_many(stage):
            return receipts
        with contextlib.suppress(ObsError), ExitStack() as held, self._connect(stage) as connection:
            given = {}
            for hour in hours:
                with contextlib.suppress(ObsError):
                    held.enter_context(self._hold(hour, alone=True, wait=False))
                    self._prepare(stage, hour)
                    given[hour] = self.stages.given(stage, hour)
            built = self.stages.build(connection, stage, given) if given else {}
            self.store.write_receipts(built)
            receipts.update(built)
        return receipts

    def _prepare(self, stage: Stage, hour: Hour) -> None:
        self._refuse_expired(stage, hour)
        self._sweep(hour, stage, *(self.destination_names if stage == STAGES[0] else ()))
        # Without a receipt nothing after this stage takes the hour: neither after a failure, nor after a crash
        self.store.forget_receipt(stage, hour)

    def _refuse_expired(self, stage: Stage, hour: Hour) -> None:
        if stage in (*UNREDACTED, "redacted_events") and self.landed().hour(hour).expired:
            raise HourExpiredError(
                f"{hour} has expired: its events before redaction were removed after retention_days, "
                f"{self.config.retention_days}, so that {stage} cannot be built again. What the destinations hold "
                f"stays as it is; `obs s3 restore {hour}` brings the hour back from the archive"
            )

    @contextmanager
    def _hold(self, hour: Hour, *, alone: bool, wait: bool = True) -> Iterator[None]:
        """Hold an hour's frames: alone to build one, with others to read them. The system lets go when a process ends.

        Raises:
            HourBusyError: another run is at it for longer than one wants to wait.
        """
        path = make_private_dir(self.store.root / "locks") / f"{hour.stamp}.lock"
        with path.open("w") as handle:
            try:
                operation = LOCK_EX if alone else LOCK_SH
                _lock(handle, operation) if wait else flock(handle, operation | LOCK_NB)
            except BlockingIOError:
                raise HourBusyError(f"another run is at work on {hour}: let it finish, then try again") from None
            yield

    def _sweep(self, hour: Hour, *names: str) -> None:
        """Remove what killed runs have written aside for an hour; nobody else may be writing there."""
        for name in names:
            for path in (self.store.frame_path(name, hour), self.store.receipt_path(name, hour)):
                for left in path.parent.glob(f"*.{path.name}.*.tmp"):
                    left.unlink(missing_ok=True)

    @cached_property
    def database(self) -> duckdb.DuckDBPyConnection:
        """Where frames are computed, by cursors of it: to open one takes a fifth of the time of a small hour."""
        return connect(self.store.temp_dir)

    @contextmanager
    def _connect(self, work: str, *, stream: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection whose errors are ours; DuckDB's own may quote events.

        One that only streams a file reads ahead on one thread: it is fast enough for who takes the rows, in half the
        memory.
        """
        with connect_to_stream(self.store.temp_dir, stream) if stream else self.database.cursor() as connection:
            try:
                yield connection
            except (
                duckdb.Error,
                UnicodeDecodeError,
                OSError,
            ) as error:  # what quotes a text may cut it within a letter
                if isinstance(error, OSError) and not told_by_arrow(error):
                    raise
                if (failure := failure_in(error)) is not None:
                    raise failure from None
                words = f"{error}\n".splitlines()[0]
                if words.startswith(("IO Error: ", "Out of Memory Error: ")):
                    raise TransientError(f"{work}: {words}") from None
                kind = words.partition(":")[0] if isinstance(error, OSError) else type(error).__name__
                raise PermanentError(f"{work}: DuckDB refused the hour ({kind})") from None

    # Destinations

    def deliver(self, name: str, hour: Hour, *, run_id: str = "", rebuild: bool = False, client: Any = None) -> Receipt:
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
        with self._hold(hour, alone=False):
            destination = self._made(config, client) if client else self.destination(name)
            return self._deliver(config, destination, hour, run_id=run_id, rebuild=rebuild)

    def _deliver(
        self, config: DestinationConfig, destination: Destination, hour: Hour, *, run_id: str, rebuild: bool
    ) -> Receipt:
        name = asset_name(config)
        source = self.store.frame_path(f"{config.from_}_events", hour)
        streams = kind_of(config).streams and source.exists() and source.stat().st_size > STREAMED_FROM
        with self._connect(f"{name} {hour}", stream=source if streams else None) as connection:
            offer, filtered = self._offer(connection, config, hour)
            receipts = tuple(self._receipts(hour, up_to=f"{config.from_}_events"))
            sent = replace(offer, run_id=run_id, rebuild=rebuild, receipts=receipts)
            delivery = destination.deliver(replace(sent, closed_until=self._closed_until(hour)))
        already_there = {"already there": delivery.already_there} if delivery.already_there else {}
        receipt = Receipt(
            hour.key,
            name,
            offer.version,
            taken=offer.rows + sum(filtered.values()),
            kept=delivery.written,
            other={**filtered, **already_there, **delivery.refused},
            details={"figures": dict(delivery.stats), **delivery.tables, **_looks(receipts)},
            content_hash=offer.content_hash,
            size_bytes=delivery.size_bytes,
        )
        return self.store.write_receipt(receipt, hour)

    def offer(self, connection: duckdb.DuckDBPyConnection, name: str, hour: Hour) -> Offer:
        """What a destination would be offered of an hour now."""
        return self._offer(connection, self.destination_config(name), hour)[0]

    def _offer(
        self, connection: duckdb.DuckDBPyConnection, config: DestinationConfig, hour: Hour
    ) -> tuple[Offer, dict[str, int]]:
        stage = f"{config.from_}_events"
        receipt = self.store.read_receipt(stage, hour).check()
        offered = _OFFERED if config.from_ == "sampled" else _OFFERED_WHOLE
        frame = self.store.read_frame(connection, stage, hour).project(offered)
        offer = Offer(frame, hour, receipt.version, receipt.kept, receipt.content_hash)
        if config.filter is None or not config.filter.enabled:
            return offer, {}
        judged = judge(connection, frame, config.filter)
        kept = judged.filter("dropped_by IS NULL").project(_OFFERED)
        rows, content = kept.aggregate(f"count(*), {CONTENT_HASH}").fetchall()[0]
        return replace(offer, frame=kept, rows=rows, content_hash=content), count_by(judged, "dropped_by")

    def _receipts(self, hour: Hour, up_to: str) -> Iterator[Receipt]:
        """The receipts of the stages of an hour, ending with this one's."""
        for stage in STAGES[: STAGES.index(up_to) + 1]:
            if receipt := self.store.find_receipt(stage, hour):
                yield receipt

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
            outbox.name: dict(outbox.dispatch(closed_until, lambda hour: landed.hour(hour).generation == 0))
            for outbox in self.outboxes().values()
        }

    def outboxes(self) -> "dict[str, WebhookAlerts]":
        """Asset's name → the enabled destination, of those that judge alert rules and keep dispatches."""
        return {asset_name(config): self._destination(config) for config in self.enabled("alerts")}

    def tables(self) -> "dict[str, PostgresDestination]":
        """Asset's name → the enabled destination, of those that keep tables of events."""
        return {asset_name(config): self._destination(config) for config in self.enabled("has_tables")}

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
