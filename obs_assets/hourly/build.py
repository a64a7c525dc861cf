"""Builds the hour of a stage under the lock of the hour: first the frame, then the receipt."""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import duckdb

from obs_assets.errors import HourExpiredError, ObsError
from obs_assets.hourly.locks import HourLocks
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hourly.stage_rows import STAGES, Stage, row_of
from obs_assets.hourly.stages import Stages
from obs_assets.hours import Hour
from obs_assets.receipts import Receipt
from obs_assets.sources.log import LandingLog
from obs_assets.storage.engine import computing
from obs_assets.storage.frames import Store


@dataclass(frozen=True)
class Builder:
    """Builds hours of one pipeline.

    Attributes:
        config: the pipeline's configuration.
        store: the frames and receipts.
        log: the landing log.
        locks: the locks of the hours.
        stages: compute the frames.
        database: opens a cursor of the engine.
        destination_names: asset names of destinations; a killed run can leave temporary files of
            their receipts.
    """

    config: PipelineConfig
    store: Store
    log: LandingLog
    locks: HourLocks
    stages: Stages
    database: Callable[[], duckdb.DuckDBPyConnection]
    destination_names: Sequence[str]

    def build(self, stage: Stage, hour: Hour) -> Receipt:
        """Build a stage's hour anew from the frame before it.

        Raises:
            MissingFrameError: the stage before has not built the hour.
            HourExpiredError: the landed events have expired; the present frames stay as they are.
            ReceiptError: the counts of the stage before do not add up.
        """
        work = f"{stage} {hour}"
        # Alone: a reader of the frame, such as a delivery, must not see it replaced.
        with (
            self.locks.hold(hour, alone=True),
            self.database() as connection,
            computing(work, connection),
        ):
            self._prepare(stage, hour)
            given = {hour: self.stages.given(stage, hour)}
            receipt = self.stages.build(connection, stage, given)[hour]
            return self.store.write_receipt(receipt, hour)

    def build_together(
        self,
        stage: Stage,
        hours: Sequence[Hour],
    ) -> dict[Hour, Receipt]:
        """Build small hours of a stage in one query, in little more time than a single hour takes.

        Returns:
            hour → receipt, for the hours that were built. Build each other hour alone: that raises
            the error that explains the failure.
        """
        receipts: dict[Hour, Receipt] = {}
        if not self.stages.takes_many(stage):
            return receipts
        # The caller builds each hour that is missing here alone, and that raises its error.
        with (
            contextlib.suppress(ObsError),
            ExitStack() as held,
            self.database() as connection,
            computing(stage, connection),
        ):
            given = {}
            # An hour that is locked, expired or without input is left out.
            for hour in hours:
                with contextlib.suppress(ObsError):
                    # Waiting for a lock while holding others could make two runs wait for each other.
                    lock = self.locks.hold(hour, alone=True, wait=False)
                    held.enter_context(lock)
                    self._prepare(stage, hour)
                    given[hour] = self.stages.given(stage, hour)
            if not given:
                return receipts
            built = self.stages.build(connection, stage, given)
            # All receipts at once: they are synced to disk together.
            self.store.write_receipts(built)
            receipts.update(built)
        return receipts

    def _prepare(self, stage: Stage, hour: Hour) -> None:
        self._refuse_expired(stage, hour)
        self._sweep(hour, stage)
        if stage == STAGES[0]:
            # Deliveries share the lock of the hour, so they cannot remove such files themselves.
            self._sweep(hour, *self.destination_names)
        # After a failure or a crash, no later stage reads an hour that has no receipt.
        self.store.forget_receipt(stage, hour)

    def _refuse_expired(self, stage: Stage, hour: Hour) -> None:
        if row_of(stage).needs_landed and self.log.load().hour(hour).expired:
            raise HourExpiredError(
                f"{hour} has expired: its events before redaction were removed after "
                f"{self.config.retention_days} days (retention_days), so {stage} cannot be built again. "
                f"The destinations keep their events; `obs s3 restore {hour}` brings the hour back "
                "from the archive"
            )

    def _sweep(self, hour: Hour, *names: str) -> None:
        """Remove temporary files of killed runs; the caller holds the hour alone."""
        paths = []
        for name in names:
            paths.append(self.store.frame_path(name, hour))
            paths.append(self.store.receipt_path(name, hour))
        for path in paths:
            for tmp_path in path.parent.glob(f"*.{path.name}.*.tmp"):
                tmp_path.unlink(missing_ok=True)
