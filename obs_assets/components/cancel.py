"""A cancelled run ends as cancelled: after Terminate in the UI, after Ctrl-C, after SIGTERM of the system.

Without this, Dagster counts Ctrl-C and SIGTERM as a failure, and its daemon repeats the run.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg


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
