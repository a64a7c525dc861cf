"""Stages and destinations as hourly assets. A body calls one function for each hour and reports its receipt."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import dagster as dg

from obs_assets.audit.checks import Finding
from obs_assets.audit.review import RECEIPT_CHECK, checks_of, review
from obs_assets.components.keys import Naming
from obs_assets.components.metadata import columns, destination_metadata, receipt_metadata
from obs_assets.components.resources import client_from, resource_key
from obs_assets.delivery.kinds import asset_name, kind_of
from obs_assets.destinations.base import DestinationConfig
from obs_assets.errors import ObsError, TransientError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import Stage, row_of
from obs_assets.hourly.stages import SMALL
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import Receipt
from obs_assets.storage.disk import interrupt_waits
from obs_assets.storage.engine import interrupt_queries
from obs_assets.storage.postgres import cancel_queries, connections_kept

# Not the assets' own policy: of Dagster 1.13 that repeats a step that was cancelled. Its pauses cannot be interrupted
RETRY = dg.RetryPolicy(
    max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
# An hour closes every hour, whatever the lateness: half an hour is what the schedule and its healing may take
OVERDUE = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=3), warn_window=timedelta(minutes=90)
)

TOGETHER, HANDS = 24, 4
"""Of a range, so many small hours go through a stage at once, and so many at a time to a destination."""

STOPS_WITHIN_S = 6.0
"""How long a cancelled run waits for its threads; what they are at by then ends by itself, whole or not at all."""


def stage_asset(hourly: HourlyPipeline, naming: Naming, stage: Stage) -> dg.AssetsDefinition:
    """The asset of a stage, with a blocking check on its receipt."""
    row = row_of(stage)

    @dg.asset(
        key=naming.key(stage),
        deps=[naming.key(row.upstream)],
        partitions_def=naming.hours,
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=_check_specs(hourly, naming, stage),
        description=row.description,
        group_name=naming.group("events"),
        kinds={"duckdb", "parquet"},
        owners=naming.owners,
        code_version=str(hourly.config.version(stage)),
        metadata={"dagster/column_schema": columns(*row.columns)},
    )
    def build(context: dg.AssetExecutionContext) -> Iterator[Any]:
        def work(hour: Hour) -> Receipt:
            return hourly.build(stage, hour)

        task = _Task(hourly, stage, work, partial(hourly.build_together, stage))
        yield from _each_hour(context, naming, task, hold_back=True)

    return build


def destination_asset(
    hourly: HourlyPipeline, naming: Naming, block: DestinationConfig
) -> dg.AssetsDefinition:
    """The asset of a destination: independent of the others in status, retry and backfill."""
    name = asset_name(block)
    bucket = resource_key(naming, block)
    kind = kind_of(block)

    @dg.asset(
        key=naming.key(name),
        deps=[naming.key(f"{block.from_}_events")],
        partitions_def=naming.hours,
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=_check_specs(hourly, naming, name),
        description=kind.description,
        group_name=naming.group("destinations"),
        kinds=set(kind.dagster_kinds),
        owners=naming.owners,
        freshness_policy=OVERDUE,
        required_resource_keys={bucket} if bucket else None,
        metadata=destination_metadata(block),
    )
    def deliver(context: dg.AssetExecutionContext) -> Iterator[Any]:
        with _client(context, bucket) as client:

            def work(hour: Hour) -> Receipt:
                return hourly.deliver(name, hour, run_id=context.run.run_id, client=client)

            task = _Task(hourly, name, work, in_order=kind.in_order)
            yield from _each_hour(context, naming, task, hold_back=False)

    return deliver


@contextmanager
def _client(context: dg.AssetExecutionContext, key: str | None) -> Iterator[Any]:
    """The client that a resource gives, closed when the step is over; None for a destination without a bucket."""
    try:
        client = client_from(getattr(context.resources, key)) if key else None
    except ObsError as error:
        raise _failure(context, error) from None
    with closing(client) if client else nullcontext():
        yield client


def _check_specs(hourly: HourlyPipeline, naming: Naming, name: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            check.name,
            asset=naming.key(name),
            blocking=check.blocks,
            partitions_def=naming.hours,
            description=check.promise,
        )
        for check in checks_of(hourly, name)
    ]


@dataclass(frozen=True)
class _Done:
    """What became of an hour: its receipt, also as metadata, and what the checks find; or an error."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    findings: Mapping[str, Finding] = field(default_factory=dict)
    error: ObsError | None = None


@dataclass(frozen=True)
class _Task:
    """What an asset does with an hour, timed, and what its checks say of that.

    Attributes:
        hourly: the pipeline.
        name: the asset's.
        work: does it with one hour.
        together: does it with some of many small hours, in one go; a destination has no such way.
        in_order: one hour after another, in their order.
    """

    hourly: HourlyPipeline
    name: str
    work: Callable[[Hour], Receipt]
    together: Callable[[Sequence[Hour]], Mapping[Hour, Receipt]] | None = None
    in_order: bool = False

    def do(
        self,
        hour: Hour,
        receipt: Receipt | None = None,
        seconds: float = 0,
        *,
        must_add_up: bool = False,
    ) -> _Done:
        """Do it, unless it was done with others in so many seconds; an error of ours is an outcome."""
        began = time.monotonic() - seconds
        try:
            receipt = receipt or self.work(hour)
            if must_add_up:
                receipt.check()
        except ObsError as error:
            return _Done(error=error)
        metadata = receipt_metadata(receipt, time.monotonic() - began)
        return _Done(metadata, review(self.hourly, self.name, hour, receipt))

    def do_all(self, hours: Sequence[Hour]) -> Iterator[tuple[Hour, _Done]]:
        """Do all, in order, while those that are done are taken; in threads, so that an interrupt arrives here."""
        landed = self.hourly.landed()
        rows = [landed.hour(hour).rows for hour in hours]
        batches = _batches(hours, rows) if self.together else [[hour] for hour in hours]
        # Whether the receipt adds up is a check of a single hour; a range has to hold the hour back by itself
        work = partial(self._do_some, must_add_up=len(hours) > 1)
        with connections_kept() if len(hours) > 1 else nullcontext():
            pool = ThreadPoolExecutor(self._hands(max(rows)))
            jobs = [pool.submit(work, batch) for batch in batches]
            try:
                for job in jobs:
                    yield from job.result()
            except BaseException:
                self._stop(jobs)
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _stop(self, jobs: "Sequence[Future[Any]]") -> None:
        """Begin nothing more, and let end what is being done."""
        begun = [job for job in jobs if not job.cancel()]
        until = time.monotonic() + STOPS_WITHIN_S
        while time.monotonic() < until and not all(job.done() for job in begun):
            interrupt_queries()
            interrupt_waits()
            cancel_queries()
            wait(begun, timeout=0.2)

    def _hands(self, largest: int) -> int:
        # A destination is mostly waited for. Large hours use all cores by themselves, and memory.
        is_waited_for = self.together is None and not self.in_order
        return HANDS if is_waited_for and largest <= SMALL else 1

    def _do_some(self, hours: Sequence[Hour], *, must_add_up: bool) -> list[tuple[Hour, _Done]]:
        began = time.monotonic()
        receipts = self.together(hours) if self.together and len(hours) > 1 else {}
        each = (time.monotonic() - began) / len(hours) if receipts else 0
        return [
            (hour, self.do(hour, receipts.get(hour), each, must_add_up=must_add_up))
            for hour in hours
        ]


def _batches(hours: Sequence[Hour], rows: Sequence[int]) -> Iterator[list[Hour]]:
    """Hours in their order, as many at a time as may go through a stage together."""
    batch: list[Hour] = []
    held = 0
    for hour, n in zip(hours, rows, strict=True):
        if batch and (held + n > SMALL or len(batch) == TOGETHER):
            yield batch
            batch, held = [], 0
        batch.append(hour)
        held += n
    yield batch


def _each_hour(
    context: dg.AssetExecutionContext, naming: Naming, task: _Task, *, hold_back: bool
) -> Iterator[Any]:
    """Do the work of each hour of the run.

    In a run of one hour a failure is the run's. In a range, a bad hour must not take the others down: a stage holds it
    back, so that nothing after it finds the hour; a destination reports the good hours itself and fails by name.
    """
    hours = [parse_hour(key) for key in context.partition_keys]
    if len(hours) == 1:
        yield from _one_hour(context, hours[0], task, retries=not hold_back)
        return
    key = naming.key(task.name)
    reports: dict[str, Mapping[str, Any]] = {}
    failed: dict[str, str] = {}
    with _reported_when_cancelled(context, key, reports):
        yield from _each_of_range(context, key, task.do_all(hours), reports, failed)
    if failed and not hold_back:
        for partition, metadata in reports.items():
            yield dg.AssetMaterialization(key, partition=partition, metadata=metadata)
        named = f"{len(failed)} of {len(hours)} hours failed: {', '.join(failed)}"
        raise dg.Failure(named, metadata=failed, allow_retries=False)
    yield dg.MaterializeResult()
    # Instead of AssetCheckResults, which would be one for all hours; they have been evaluated one by one.
    for output in context.assets_def.check_specs_by_output_name:
        yield dg.Output(None, output_name=output)


@contextmanager
def _reported_when_cancelled(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    reports: Mapping[str, Mapping[str, Any]],
) -> Iterator[None]:
    """Tell Dagster of the hours that are whole when a range is cancelled; of a whole range it learns at the end."""
    try:
        yield
    except (Exception, GeneratorExit):
        raise
    except BaseException:
        for partition, metadata in reports.items():
            context.log_event(
                dg.AssetMaterialization(key, partition=partition, metadata=metadata)
            )
        raise


def _each_of_range(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    outcomes: Iterator[tuple[Hour, _Done]],
    reports: dict[str, Mapping[str, Any]],
    failed: dict[str, str],
) -> Iterator[dg.AssetCheckEvaluation]:
    """The evaluations of a range's checks; fills ``reports``, hour → metadata, and ``failed``, hour → problem."""
    for hour, done in outcomes:
        if done.error:
            problem = failed[hour.key] = str(done.error)
            context.log.error("%s: %s", hour, problem)
            context.add_asset_metadata({"held back": problem}, partition_key=hour.key)
            yield _evaluation(key, hour, RECEIPT_CHECK, Finding(False, problem, is_grave=True))
        else:
            reports[hour.key] = done.metadata
            context.add_asset_metadata(dict(done.metadata), partition_key=hour.key)
            for name, finding in done.findings.items():
                yield _evaluation(key, hour, name, finding)


def _failure(
    context: dg.AssetExecutionContext, error: ObsError
) -> dg.Failure | dg.RetryRequested:
    """What a destination's step raises: the wish to be repeated while the error may pass, else its failure."""
    if isinstance(error, TransientError) and context.retry_number < RETRY.max_retries:
        context.log.warning("tried again in some seconds: %s", error)
        return dg.RetryRequested(
            RETRY.max_retries, RETRY.calculate_delay(context.retry_number + 1)
        )
    return dg.Failure(str(error), allow_retries=False)


def _one_hour(
    context: dg.AssetExecutionContext, hour: Hour, task: _Task, *, retries: bool
) -> Iterator[Any]:
    ((_, done),) = task.do_all([hour])
    if done.error:
        raise (
            _failure(context, done.error) if retries else dg.Failure(str(done.error))
        ) from None
    results = [
        dg.AssetCheckResult(
            check_name=name,
            passed=finding.passed,
            severity=_severity(finding),
            description=finding.sentence,
            metadata=dict(finding.facts),
        )
        for name, finding in done.findings.items()
    ]
    yield dg.MaterializeResult(metadata=done.metadata, check_results=results)


def _evaluation(
    key: dg.AssetKey, hour: Hour, name: str, finding: Finding
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=name,
        passed=finding.passed,
        metadata=dict(finding.facts),
        partition=hour.key,
        blocking=False,
        severity=_severity(finding),
        description=finding.sentence,
    )


def _severity(finding: Finding) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if finding.is_grave else dg.AssetCheckSeverity.WARN
