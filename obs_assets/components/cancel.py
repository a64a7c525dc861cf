"""A run that is cancelled ends as cancelled, whoever asks: Terminate in the UI, Ctrl-C, or SIGTERM of the system.

Dagster counts a signal that nobody announced as a failure, which its daemon would repeat.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg


class _Cancellable(dg.Executor):
    """Another executor, under which an interrupt cancels the run."""

    def __init__(self, executor: dg.Executor) -> None:
        self._executor = executor

    @property
    def retries(self) -> Any:
        """Of the other executor."""
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        """Of the other executor."""
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[Any]:
        """Execute; an interrupt is announced as the wish to cancel, then raised on."""
        try:
            yield from self._executor.execute(plan_context, execution_plan)
        except (Exception, GeneratorExit):
            raise
        except BaseException:
            run = plan_context.instance.get_run_by_id(plan_context.run_id)
            if run and run.status == dg.DagsterRunStatus.STARTED:
                plan_context.instance.report_run_canceling(run)
            raise


_SAME_CONFIG: Any = dg.in_process_executor.config_schema


@dg.executor(name="in_process", config_schema=_SAME_CONFIG)
def in_process(context: dg.InitExecutorContext) -> dg.Executor:
    """Dagster's in-process executor, see `_Cancellable`. Seven trivial steps: 22 s with a process each, 4 s in one."""
    create = dg.in_process_executor.executor_creation_fn
    assert create  # noqa: S101 - the other kind has none, this one does
    return _Cancellable(create(context))
