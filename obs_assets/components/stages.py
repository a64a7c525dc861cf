"""Stages and destinations as hourly assets. An asset calls a function for each hour and reports its receipt."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

import dagster as dg

from obs_assets.audit.checks import Finding
from obs_assets.audit.review import RECEIPT_CHECK, checks_of, review
from obs_assets.components.cancel import reported, stop, submit
from obs_assets.components.keys import Naming
from obs_assets.components.metadata import (
    columns,
    destination_metadata,
    explorer_link,
    receipt_metadata,
)
from obs_assets.components.resources import client_from, resource_key
from obs_assets.delivery.kinds import asset_name, kind_of
from obs_assets.destinations.base import DestinationConfig
from obs_assets.errors import ObsError, TransientError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import Stage, row_of
from obs_assets.hourly.stages import SMALL
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import Receipt
from obs_assets.storage.postgres import connections_kept

Context: TypeAlias = dg.AssetExecutionContext
"""Context of a step."""

Metadata: TypeAlias = Mapping[str, Any]
"""Metadata of a materialization: title → value."""

# It is not given to the assets: Dagster 1.13 would also repeat a cancelled step, and its pauses cannot
# be interrupted. `_failure` asks for the repetition instead.
RETRY = dg.RetryPolicy(
    max_retries=2,
    delay=2,  # seconds
    backoff=dg.Backoff.EXPONENTIAL,
    jitter=dg.Jitter.PLUS_MINUS,
)
# An hour closes every 60 minutes, whatever the lateness. The other 30 minutes until the warning are for
# the schedule and `stale_hour_sensor`.
OVERDUE = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=3),
    warn_window=timedelta(minutes=90),
)

HOURS_PER_BATCH = 24
"""Largest number of small hours of a range that a stage builds in one query."""

DESTINATION_WORKERS = 4
"""Number of small hours of a range that are delivered to a destination in parallel."""


def stage_asset(hourly: HourlyPipeline, naming: Naming, stage: Stage) -> dg.AssetsDefinition:
    """The asset of a stage, with a blocking check on its receipt."""
    row = row_of(stage)

    @dg.asset(
        key=naming.key(stage),
        deps=[naming.key(row.upstream)],
        partitions_def=naming.hours,
        # A range is a single run: a run for each hour would spend seconds on loading the code.
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=_check_specs(hourly, naming, stage),
        description=row.description,
        group_name=naming.group("events"),
        kinds={"duckdb", "parquet"},
        owners=naming.owners,
        code_version=str(hourly.config.version(stage)),
        metadata={"dagster/column_schema": columns(*row.columns)},
    )
    def build(context: Context) -> Iterator[Any]:
        build_hour = partial(hourly.build, stage)
        task = _Task(hourly, stage, build_hour, partial(hourly.build_together, stage))
        yield from _each_hour(context, naming, task, hold_back=True)

    return build


def destination_asset(
    hourly: HourlyPipeline,
    naming: Naming,
    block: DestinationConfig,
) -> dg.AssetsDefinition:
    """The asset of a destination: independent of the others in status, retry and backfill."""
    name = asset_name(block)
    kind = kind_of(block)
    resource = resource_key(naming, block)
    resources = {resource} if resource else None

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
        required_resource_keys=resources,
        metadata=destination_metadata(block),
    )
    def deliver(context: Context) -> Iterator[Any]:
        with _client(context, resource) as client:

            def work(hour: Hour) -> Receipt:
                return hourly.deliver(name, hour, run_id=context.run.run_id, client=client)

            # `obs serve` reads the first table.
            is_searched = block in hourly.enabled("has_tables")[:1]
            task = _Task(hourly, name, work, in_order=kind.in_order, is_searched=is_searched)
            yield from _each_hour(context, naming, task, hold_back=False)

    return deliver


@contextmanager
def _client(context: Context, key: str | None) -> Iterator[Any]:
    """The client of a resource, closed when the step is over; None for a destination without a resource."""
    if key is None:
        yield None
        return
    try:
        client = client_from(getattr(context.resources, key))
    except ObsError as error:
        raise _failure(context, error) from None
    with closing(client):
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
class _Outcome:
    """The outcome of an hour: metadata and findings, or an error.

    Attributes:
        metadata: the receipt, as metadata of the materialization.
        findings: name of a check → its finding.
        error: the error that stopped the hour; None if the hour was built or delivered.
    """

    metadata: Metadata = field(default_factory=dict)
    findings: Mapping[str, Finding] = field(default_factory=dict)
    error: ObsError | None = None


@dataclass(frozen=True)
class _Task:
    """The work of an asset on its hours, with the checks of each hour.

    Attributes:
        hourly: the pipeline.
        name: name of the asset.
        work: builds or delivers an hour.
        together: builds some of several small hours in one query, and returns their receipts; None
            for a destination.
        in_order: deliver an hour only after the hour before it.
        is_searched: ``obs serve`` finds the events of the asset.
        done: the outcomes that are known.
    """

    hourly: HourlyPipeline
    name: str
    work: Callable[[Hour], Receipt]
    together: Callable[[Sequence[Hour]], Mapping[Hour, Receipt]] | None = None
    in_order: bool = False
    is_searched: bool = False
    done: dict[Hour, _Outcome] = field(default_factory=dict)

    def do(
        self,
        hour: Hour,
        receipt: Receipt | None = None,
        seconds: float = 0,
        *,
        must_add_up: bool = False,
    ) -> _Outcome:
        """Build or deliver an hour and evaluate its checks.

        Args:
            hour: the hour.
            receipt: the receipt, if the hour has been built together with others.
            seconds: share of the hour in the time of that.
            must_add_up: whether a receipt that does not add up is an error.
        """
        began = time.monotonic() - seconds
        try:
            receipt = receipt or self.work(hour)
            if must_add_up:
                receipt.check()
        except ObsError as error:
            return _Outcome(error=error)
        metadata = receipt_metadata(receipt, time.monotonic() - began)
        if self.is_searched:
            metadata["explorer"] = explorer_link(self.hourly.settings.api.address, hour)
        return _Outcome(metadata, review(self.hourly, self.name, hour, receipt))

    def do_all(self, hours: Sequence[Hour]) -> Iterator[tuple[Hour, _Outcome]]:
        """Build or deliver hours; yields the outcomes in order, each as soon as it is known.

        The work runs in threads, so that an interrupt arrives in this thread, which waits.
        """
        landed = self.hourly.landed()
        rows = [landed.hour(hour).rows for hour in hours]
        batches: Iterable[list[Hour]] = [[hour] for hour in hours]
        if self.together:
            batches = _batches(hours, rows)
        # In a run of a single hour, the receipt is a blocking check. Dagster does not block single
        # hours of a range, so there a receipt that does not add up is an error.
        is_range = len(hours) > 1
        work = partial(self._do_batch, must_add_up=is_range)
        with connections_kept() if is_range else nullcontext():
            pool = ThreadPoolExecutor(self._workers(max(rows)))
            jobs = [submit(pool, work, batch) for batch in batches]
            try:
                for job in jobs:
                    yield from job.result()
            except BaseException:
                stop(jobs)
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _workers(self, largest: int) -> int:
        """Number of threads; ``largest`` is the number of events of the largest hour."""
        # A delivery mostly waits for its server, so several run at the same time. A stage and a large
        # hour use all cores and much memory by themselves.
        if self.together is None and not self.in_order and largest <= SMALL:
            return DESTINATION_WORKERS
        return 1

    def _do_batch(
        self,
        hours: Sequence[Hour],
        *,
        must_add_up: bool,
    ) -> list[tuple[Hour, _Outcome]]:
        began = time.monotonic()
        receipts: Mapping[Hour, Receipt] = {}
        seconds_each = 0.0
        if self.together and len(hours) > 1:
            receipts = self.together(hours)
        if receipts:
            seconds_each = (time.monotonic() - began) / len(hours)
        outcomes: list[tuple[Hour, _Outcome]] = []
        for hour in hours:
            receipt = receipts.get(hour)
            outcome = self.do(hour, receipt, seconds_each, must_add_up=must_add_up)
            self.done[hour] = outcome
            outcomes.append((hour, outcome))
        return outcomes


def _batches(hours: Sequence[Hour], rows: Sequence[int]) -> Iterator[list[Hour]]:
    """Hours in order, in batches of at most `HOURS_PER_BATCH` hours and `SMALL` events.

    Args:
        hours: the hours.
        rows: number of landed events of each hour.
    """
    batch: list[Hour] = []
    held = 0
    for hour, n in zip(hours, rows, strict=True):
        is_full = held + n > SMALL or len(batch) == HOURS_PER_BATCH
        if batch and is_full:
            yield batch
            batch = []
            held = 0
        batch.append(hour)
        held += n
    yield batch


def _each_hour(
    context: Context,
    naming: Naming,
    task: _Task,
    *,
    hold_back: bool,
) -> Iterator[Any]:
    """Do the work of each hour of the run.

    In a run of a single hour, a failed hour fails the run. In a range, a failed hour must not stop the
    others: a stage holds the hour back, so that later stages do not find it. A destination reports the
    good hours itself, then fails and names the others.

    Args:
        context: context of the step.
        naming: names of the pipeline.
        task: the work.
        hold_back: true for a stage, false for a destination.
    """
    hours = [parse_hour(key) for key in context.partition_keys]
    key = naming.key(task.name)

    def report() -> None:
        """Report the complete hours of a cancelled run, which Dagster does not know yet."""
        for hour, outcome in list(task.done.items()):
            if not outcome.error:
                metadata = outcome.metadata
                context.log_event(
                    dg.AssetMaterialization(key, partition=hour.key, metadata=metadata)
                )

    if len(hours) == 1:
        with reported(report):
            ((_, outcome),) = task.do_all(hours)
        yield from _one_hour(context, outcome, retries=not hold_back)
        return
    failed: dict[str, str] = {}
    with reported(report):
        yield from _each_of_range(context, key, task.do_all(hours), failed)
    if failed and not hold_back:
        for hour, outcome in task.done.items():
            if not outcome.error:
                metadata = outcome.metadata
                yield dg.AssetMaterialization(key, partition=hour.key, metadata=metadata)
        named = f"{len(failed)} of {len(hours)} hours failed: {', '.join(failed)}"
        raise dg.Failure(named, metadata=failed, allow_retries=False)
    yield dg.MaterializeResult()
    # An AssetCheckResult would stand for all hours of the range. `_each_of_range` has evaluated the
    # checks hour by hour, so the outputs are empty.
    for output in context.assets_def.check_specs_by_output_name:
        yield dg.Output(None, output_name=output)


def _each_of_range(
    context: Context,
    key: dg.AssetKey,
    outcomes: Iterator[tuple[Hour, _Outcome]],
    failed: dict[str, str],
) -> Iterator[dg.AssetCheckEvaluation]:
    """The evaluations of the checks of a range.

    Args:
        context: context of the step.
        key: key of the asset.
        outcomes: the outcomes, in the order of hours.
        failed: is filled: key of a failed hour → its error.
    """
    for hour, outcome in outcomes:
        if outcome.error:
            problem = failed[hour.key] = str(outcome.error)
            context.log.error("%s: %s", hour, problem)
            context.add_asset_metadata({"held back": problem}, partition_key=hour.key)
            finding = Finding(False, problem, is_grave=True)
            yield _evaluation(key, hour, RECEIPT_CHECK, finding)
        else:
            context.add_asset_metadata(dict(outcome.metadata), partition_key=hour.key)
            for name, finding in outcome.findings.items():
                yield _evaluation(key, hour, name, finding)


def _failure(
    context: Context,
    error: ObsError,
) -> dg.Failure | dg.RetryRequested:
    """The exception of a destination's step: a request to retry after a transient error, else the failure."""
    if isinstance(error, TransientError) and context.retry_number < RETRY.max_retries:
        context.log.warning("tried again in some seconds: %s", error)
        delay_s = RETRY.calculate_delay(context.retry_number + 1)
        return dg.RetryRequested(RETRY.max_retries, delay_s)
    return dg.Failure(str(error), allow_retries=False)


def _one_hour(
    context: Context,
    outcome: _Outcome,
    *,
    retries: bool,
) -> Iterator[Any]:
    """The result of a run of a single hour; ``retries`` says whether a transient error is tried again."""
    if outcome.error and retries:
        raise _failure(context, outcome.error) from None
    if outcome.error:
        raise dg.Failure(str(outcome.error)) from None
    results = [
        dg.AssetCheckResult(
            check_name=name,
            passed=finding.passed,
            severity=_severity(finding),
            description=finding.sentence,
            metadata=dict(finding.facts),
        )
        for name, finding in outcome.findings.items()
    ]
    yield dg.MaterializeResult(metadata=outcome.metadata, check_results=results)


def _evaluation(
    key: dg.AssetKey,
    hour: Hour,
    name: str,
    finding: Finding,
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
    if finding.is_grave:
        return dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckSeverity.WARN
