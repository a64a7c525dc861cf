"""Dagster as it is deployed: webserver, daemon and code server as three plain processes, each of which may be killed.

Runs are kept in a PostgreSQL of Dagster's own, so that it can be lost while the destinations go on. What a test would
have to wait for, the pauses between ticks and the limits of runs, passes by moving back what Dagster has written down.
"""

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
import yaml

from obs_assets.demo.receiver import Receiver
from obs_assets.embedded import process
from obs_assets.embedded.dagster_home import SETTINGS, URL_VARIABLE
from obs_assets.embedded.postgres import server as postgres_of
from obs_assets.hourly import pipeline, pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour, parse_hours
from obs_assets.settings import Settings
from obs_assets_tests import harness

PATIENCE_S = 500.0
"""A bound for a machine that is busy with other things; usually seconds pass."""

LOCATION = "obs_assets.definitions"
FAST: dict[str, Any] = {
    "run_monitoring": {**SETTINGS["run_monitoring"], "poll_interval_seconds": 2},
    "run_coordinator": {
        "module": "dagster.core.run_coordinator",
        "class": "QueuedRunCoordinator",
        "config": {"dequeue_interval_seconds": 1},
    },
}
"""What the deployment does every two minutes, a test does not wait for."""

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""
_BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}"""


_SCHEDULES: LiteralString = """
SELECT 1 FROM instigators WHERE instigator_body::jsonb #>> '{job_specific_data,start_timestamp}' IS NOT NULL"""


def wait_for(
    what: str, done: Callable[[], Any], timeout_s: float = PATIENCE_S, pause_s: float = 0.2
) -> Any:
    """Ask until there is an answer."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := done():
            return found
        time.sleep(pause_s)
    raise AssertionError(f"{what}: not within {timeout_s} s")


@dataclass(frozen=True)
class Run:
    """A run as Dagster's database knows it."""

    run_id: str
    job: str
    status: str
    hour: str
    tags: dict[str, str]

    @property
    def keys(self) -> list[str]:
        """The hours that it is of, alone or as a range."""
        first, last = (
            self.tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end")
        )
        if first and last:
            return [hour.key for hour in parse_hours(f"{first}...{last}")]
        return [self.hour] if self.hour else []

    @property
    def ended(self) -> bool:
        return self.status in {"SUCCESS", "FAILURE", "CANCELED"}


@dataclass
class Deployment:
    """Three processes over one Dagster instance.

    Attributes:
        machine: the servers of the destinations, and the data folder.
        events_dir: where programs write their events.
        env: what all three get.
        logs: a folder with what each has printed.
        receiver: gets the alerts.
    """

    machine: Settings
    events_dir: Path
    env: dict[str, str]
    logs: Path
    receiver: Receiver
    ports: dict[str, int] = field(
        default_factory=lambda: {"code": free_port(), "web": free_port()}
    )
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    # -- processes

    def write_workspace(self) -> None:
        """Where webserver and daemon find the code server."""
        server = {
            "host": process.LOOPBACK,
            "port": self.ports["code"],
            "location_name": LOCATION,
        }
        (self.logs / "workspace.yaml").write_text(
            yaml.safe_dump({"load_from": [{"grpc_server": server}]})
        )

    def start(self, name: str, **env: str) -> None:
        """Start ``code``, ``daemon`` or ``web`` and wait until it serves."""
        workspace = ["-w", str(self.logs / "workspace.yaml")]
        command = {
            "code": [
                "dagster",
                "api",
                "grpc",
                "-m",
                LOCATION,
                "-h",
                process.LOOPBACK,
                "-p",
                str(self.ports["code"]),
            ],
            "daemon": ["dagster-daemon", "run", *workspace],
            "web": [
                "dagster-webserver",
                *workspace,
                "-h",
                process.LOOPBACK,
                "-p",
                str(self.ports["web"]),
            ],
        }[name]
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(harness.BIN / command[0]), *command[1:]],
                env={**self.env, **env},
                cwd=self.logs,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if name in self.ports:
            wait_for(f"{name} listens", lambda: self._listens(name))

    def _listens(self, name: str) -> bool:
        assert self.processes[name].poll() is None, (self.logs / f"{name}.log").read_text()[
            -2000:
        ]
        with socket.socket() as probe:
            return probe.connect_ex((process.LOOPBACK, self.ports[name])) == 0

    def kill(self, name: str, *, with_children: bool = False) -> None:
        """SIGKILL the process itself; its children live on, or die with it."""
        children = psutil.Process(self.processes[name].pid).children(recursive=True)
        self.processes[name].kill()
        for child in children if with_children else ():
            with contextlib.suppress(psutil.Error):
                child.kill()
        self.processes[name].wait()

    def restart(self, name: str, **env: str) -> None:
        """SIGKILL it and start it anew, with something else in its environment if need be."""
        self.kill(name)
        self.start(name, **env)

    def stop(self) -> None:
        """End everything, orphans too."""
        for running in self.processes.values():
            running.kill()
            running.wait()
        for orphan in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if orphan.environ().get("DAGSTER_HOME") == self.env["DAGSTER_HOME"]:
                    orphan.kill()

    # -- what a user asks for

    def graphql(self, query: str, **variables: Any) -> Any:
        request = urllib.request.Request(
            f"http://{process.LOOPBACK}:{self.ports['web']}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"][0]["message"]
        return found["data"]

    def graphql_patiently(self, query: str, **variables: Any) -> Any:
        """What is started again, code server or database, is found by the webserver after a moment."""
        refusals: list[str] = []

        def ask() -> Any:
            try:
                return self.graphql(query, **variables)
            except urllib.error.HTTPError as error:
                refusals.append(error.read().decode()[:500])
                return None

        try:
            return wait_for("the webserver answers", ask, pause_s=1)
        except AssertionError as error:
            raise AssertionError(f"{error}; last answer: {refusals[-1:]}") from None

    def launch(self, *hours: Hour, asset: str = "", **tags: str) -> str:
        """Materialize an hour, or a range of hours in one run, as the UI does; returns the run's id.

        Args:
            hours: the hours.
            asset: the only asset to materialize; by default all.
            tags: further tags of the run, with ``__`` for a slash.
        """
        selector: dict[str, object] = {
            "repositoryLocationName": LOCATION,
            "repositoryName": "__repository__",
            "pipelineName": "hourly_pipeline",
        }
        if asset:
            selector["assetSelection"] = [{"path": [asset]}]
        ends = {"start": hours[0].key, "end": hours[-1].key}
        of_range = {f"dagster/asset_partition_range_{end}": key for end, key in ends.items()}
        named = {
            **(of_range if len(hours) > 1 else {"dagster/partition": hours[0].key}),
            **{name.replace("__", "/"): value for name, value in tags.items()},
        }
        params = {
            "selector": selector,
            "mode": "default",
            "runConfigData": "{}",
            "executionMetadata": {
                "tags": [{"key": key, "value": value} for key, value in named.items()]
            },
        }
        answers: list[dict[str, Any]] = []

        def launched() -> bool:
            answers.append(self.graphql_patiently(_LAUNCH, params=params)["launchRun"])
            return bool(answers[-1]["__typename"] == "LaunchRunSuccess")

        wait_for("the run is launched", launched, pause_s=1)
        return str(answers[-1]["run"]["runId"])

    def backfill(self, *hours: Hour) -> str:
        """Materialize a range of hours as the UI's dialog does; returns the backfill's id."""
        names = [*pipeline.STAGES, *self.hourly.destination_names]
        params = {
            "assetSelection": [{"path": [name]} for name in names],
            "partitionNames": [hour.key for hour in hours],
            "fromFailure": False,
        }
        answer = self.graphql_patiently(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    # -- what Dagster knows

    @property
    def hourly(self) -> HourlyPipeline:
        return HourlyPipeline(pipeline.load(pipeline_files.find().path, self.env), self.machine)

    @property
    def dsn(self) -> str:
        """Where Dagster's own database is, its password included."""
        return self.env[URL_VARIABLE].replace("+psycopg2", "")

    def sql(self, query: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask Dagster's own database."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def runs(self, *hours: Hour) -> list[Run]:
        """The runs of these hours, or all; the oldest first."""
        found = self.sql(
            "SELECT r.run_id, r.pipeline_name, r.status, coalesce(jsonb_object_agg(t.key, t.value)"
            " FILTER (WHERE t.key IS NOT NULL), '{}') FROM runs r LEFT JOIN run_tags t ON t.run_id = r.run_id"
            " GROUP BY r.id ORDER BY r.id"
        )
        runs = [
            Run(run_id, job, status, tags.get("dagster/partition", ""), tags)
            for run_id, job, status, tags in found
        ]
        keys = {hour.key for hour in hours}
        return [run for run in runs if not hours or not keys.isdisjoint(run.keys)]

    def run(self, run_id: str) -> Run:
        return next(run for run in self.runs() if run.run_id == run_id)

    def status(self, run_id: str) -> str:
        return self.run(run_id).status

    def range_runs(self) -> list[Run]:
        """The runs of ranges of hours."""
        return [run for run in self.runs() if "dagster/asset_partition_range_start" in run.tags]

    def times(self, *run_ids: str) -> list[tuple[float, float]]:
        """When runs began and ended, in the order of their beginning."""
        query: LiteralString = (
            "SELECT start_time, end_time FROM runs WHERE run_id = ANY(%s) ORDER BY start_time"
        )
        return [(float(start), float(end)) for start, end in self.sql(query, list(run_ids))]

    def refused(self, run_id: str, why: str) -> set[str]:
        """The steps of a run that failed for this reason."""
        failed: LiteralString = """
            SELECT step_key FROM event_logs
            WHERE run_id = %s AND dagster_event_type = 'STEP_FAILURE' AND strpos(event, %s) > 0"""
        return {step for (step,) in self.sql(failed, run_id, why)}

    def reserved_runs(self) -> bool:
        """Whether a tick has decided on runs and not launched all of them."""
        ticks = self.sql("SELECT tick_body::jsonb FROM job_ticks WHERE status = 'STARTED'")
        return any(body.get("reserved_run_ids") for (body,) in ticks)

    @contextlib.contextmanager
    def held_runs(self) -> Iterator[None]:
        """Let nobody add a run; what has been asked for by then is not done afterwards."""
        with psycopg.connect(self.dsn) as connection, connection.transaction():
            connection.execute("LOCK TABLE runs IN SHARE MODE")
            yield
            time.sleep(
                2
            )  # client_connection_check_interval is half a second: who was killed waits no longer

    def kill_database(self) -> None:
        """SIGKILL the PostgreSQL that keeps the runs."""
        pid = process.status(postgres_of(self.machine.data_dir)).pid
        assert pid
        psutil.Process(pid).kill()

    def supervise(self) -> None:
        """Start what has ended by itself, as any service manager does."""
        for name, running in self.processes.items():
            if running.poll() is not None:
                self.start(name)

    def wait_for_run(self, run_id: str, *statuses: str, timeout_s: float = PATIENCE_S) -> str:
        return str(
            wait_for(
                f"run {run_id} becomes {statuses}",
                lambda: next(
                    (status for status in [self.status(run_id)] if status in statuses), None
                ),
                timeout_s,
            )
        )

    # -- time

    def let_pass(self, time_passed: timedelta, *run_ids: str) -> None:
        """Move back what Dagster has written down of runs that failed, and of these, as if it were so long ago."""
        seconds = time_passed.total_seconds()
        self.sql(
            "UPDATE runs SET create_timestamp = create_timestamp - %s, update_timestamp = update_timestamp - %s,"
            " start_time = start_time - %s, end_time = end_time - %s"
            " WHERE run_id = ANY(%s) OR status IN ('FAILURE', 'CANCELED')",
            *[time_passed] * 2,
            *[seconds] * 2,
            list(run_ids),
        )
        self.sql(
            "UPDATE event_logs SET timestamp = timestamp - %s WHERE run_id = ANY(%s)",
            time_passed,
            list(run_ids),
        )

    def let_schedules_tick(self) -> None:
        """Let five minutes go by for schedules; the daemon looks at them once a minute, and when it starts."""
        wait_for("the schedules are on", lambda: self.sql(_SCHEDULES))
        self.kill("daemon")
        self.sql("DELETE FROM job_ticks WHERE type = 'SCHEDULE'")
        self.sql(
            "UPDATE instigators SET instigator_body = jsonb_set(instigator_body::jsonb #-"
            " '{job_specific_data,last_iteration_timestamp}', '{job_specific_data,start_timestamp}',"
            " to_jsonb(extract(epoch FROM now() - interval '5 min')))::text"
            " WHERE instigator_body::jsonb #>> '{job_specific_data,start_timestamp}' IS NOT NULL"
        )
        self.start("daemon")

    def hold(self, *sensors: str) -> None:
        """Let these sensors look at nothing until they are woken: a test decides when hours are asked for."""
        for sensor in sensors:
            later: LiteralString = """
                UPDATE instigators SET instigator_body = jsonb_set(jsonb_set(instigator_body::jsonb,
                    '{job_specific_data,last_tick_start_timestamp}', to_jsonb(extract(epoch FROM now()) + 86400)),
                    '{job_specific_data,last_tick_timestamp}', to_jsonb(extract(epoch FROM now()) + 86400))::text
                WHERE strpos(instigator_body, %s) > 0 RETURNING 1"""
            wait_for(f"{sensor} is known", partial(self.sql, later, f'"{sensor}"'))

    def wake(self, *sensors: str) -> None:
        """Let the pauses before the next ticks of these sensors be over."""
        for sensor in sensors or ("event_file_sensor", "stale_hour_sensor"):
            self.sql(
                "UPDATE instigators SET instigator_body = (instigator_body::jsonb #-"
                " '{job_specific_data,last_tick_start_timestamp}' #- '{job_specific_data,last_tick_timestamp}'"
                " #- '{job_specific_data,cursor}')::text"
                " WHERE strpos(instigator_body, %s) > 0",
                f'"{sensor}"',
            )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((process.LOOPBACK, 0))
        return int(probe.getsockname()[1])
