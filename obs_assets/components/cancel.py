"""A cancelled run ends as cancelled: after Terminate in the UI, after Ctrl-C, after SIGTERM of the system.

Without this, Dagster counts Ctrl-C and SIGTERM as a failure, and its daemon repeats the run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakSet

import dagster as dg

from obs_assets.sources.landing import interrupt_passes
from obs_assets.storage.disk import interrupt_waits
from obs_assets.storage.engine import interrupt_queries
from obs_assets.storage.postgres import cancel_queries

T = TypeVar("T")

STOPS_WITHIN_S = 6.0
"""Seconds for which a cancelled run waits for its threads. A write that still runs then completes or leaves nothing."""

LOOKS_EVERY_S = 0.2
"""Seconds between two interrupts of the threads of a cancelled run. A thread may start another query."""


_jobs: WeakSet[Future[Any]] = WeakSet()
"""The work of the run's threads."""

_reports: list[Callable[[], None]] = []
"""The functions that report what a cancelled run has completed."""


def submit(pool: ThreadPoolExecutor, work: Callable[..., T], *given: Any) -> "Future[T]":
    """Start work in a thread of a pool. `cancel` stops it."""
    job = pool.submit(work, *given)
    _jobs.add(job)
    return job


@contextmanager
def reported(report: Callable[[], None]) -> Iterator[None]:
    """Within the block, `cancel` calls ``report``, once.

    An interrupt in the block cancels the run. Dagster can also raise an interrupt outside, between two events that a
    step yields; then the block does not see it, and the executor cancels the run.
    """
    _reports.append(report)
    try:
        yield
    except (Exception, GeneratorExit):
        raise
    except BaseException:
        cancel()
        raise
    finally:
        if report in _reports:
            _reports.remove(report)


def cancel() -> None:
    """Stop the work of the run, then report what is complete."""
    stop(list(_jobs))
    while _reports:
        _reports.pop()()


def in_thread(work: Callable[[], T]) -> T:
    """Do work in a thread, and wait for it in this thread.

    A signal raises its exception in the main thread, whatever runs there. Within DuckDB the exception can get lost: of
    60 landing passes that were interrupted in the main thread, one went on. A thread that only waits loses none.

    Raises:
        BaseException: the exception of the work, or an interrupt; then the work was stopped.
    """
    pool = ThreadPoolExecutor(1)
    job = submit(pool, work)
    try:
        return job.result()
    except BaseException:
        stop([job])
        raise
    finally:
        pool.shutdown(wait=False)


def stop(jobs: Sequence[Future[Any]]) -> None:
    """Cancel waiting work, interrupt running work, and wait for it at most `STOPS_WITHIN_S`."""
    running = [job for job in jobs if not job.cancel()]
    until = time.monotonic() + STOPS_WITHIN_S
    while time.monotonic() < until and not all(job.done() for job in running):
        interrupt_queries()
        interrupt_waits()
        interrupt_passes()
        cancel_queries()
        wait(running, timeout=LOOKS_EVERY_S)


class _Cancellable(dg.Executor):
    """Wraps another executor; an interrupt cancels the run."""

    def __init__(self, executor: dg.Executor) -> None:
        self._executor = executor

    @property
    def retries(self) -> Any:
        """The value of the other executor."""
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        """The value of the other executor."""
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[Any]:
        """Execute the plan. Report an interrupt to Dagster as a cancellation, then raise it again."""
        try:
            yield from self._executor.execute(plan_context, execution_plan)
        except (Exception, GeneratorExit):
            raise
        except BaseException:
            cancel()
            # Dagster counts an interrupt as a cancellation only if the run is already canceling, which
            # is so after Terminate in the UI.
            run = plan_context.instance.get_run_by_id(plan_context.run_id)
            if run and run.status == dg.DagsterRunStatus.STARTED:
                plan_context.instance.report_run_canceling(run)
            raise


_SAME_CONFIG: Any = dg.in_process_executor.config_schema


@dg.executor(name="in_process", config_schema=_SAME_CONFIG)
def in_process(context: dg.InitExecutorContext) -> dg.Executor:
    """Dagster's in-process executor, wrapped by `_Cancellable`.

    Seven trivial steps take 22 s with a process for each step, 4 s in the same process.
    """
    create = dg.in_process_executor.executor_creation_fn
    assert create  # noqa: S101 - only an executor without a function has None
    return _Cancellable(create(context))
