"""Starts what is to run, starts again what has died, kills at random, and in the end lets everything come to rest."""

import contextlib
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from obs_assets import embedded, settings
from obs_assets.embedded import process
from obs_assets.embedded.postgres import server as postgres_of
from obs_assets.embedded.s3 import server as s3_of
from obs_assets.errors import ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets_tests.soak import processes
from obs_assets_tests.soak.writers import write_for_ever

KINDS = ("writer", "sensors", "landing", "run", "postgres", "postgres backend", "s3")
AT_A_TIME = 3
JOBS = {"event_file_sensor": "land_event_files"}


@dataclass
class Worker:
    """A run and its process."""

    process: Any
    job: str
    hour: str | None
    run_id: str


@dataclass
class Conductor:
    """The whole of it.

    Attributes:
        env: of all processes: folders and the webhook; PostgreSQL and S3 are the embedded ones.
        hours: that are written about.
        rng: chooses whom to kill, and when.
        killed: how many of each kind.
        ended: how runs ended, by their exit codes.
    """

    env: dict[str, str]
    hours: list[Hour]
    rng: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    ended: Counter[int] = field(default_factory=Counter)
    workers: list[Worker] = field(default_factory=list)
    lives: int = 0
    writer: Any = None
    sensors: Any = None
    requests: "Connection[Any, Any] | None" = None
    idle: int = 0

    @property
    def hourly(self) -> HourlyPipeline:
        return HourlyPipeline(processes.config_of(self.env), settings.load(self.env))

    @property
    def data_dir(self) -> Path:
        return Path(self.env["OBS_DATA_DIR"])

    @property
    def progress(self) -> Path:
        return self.data_dir / "progress"

    # -- killing

    def kill(self, kills: int) -> None:
        """Let everything run until so many processes were killed, each kind in turn, at random moments."""
        self._say_progress(0)
        victims = [
            kind
            for _ in range(-(-kills // len(KINDS)))
            for kind in self.rng.sample(KINDS, len(KINDS))
        ]
        for number, kind in enumerate(victims[:kills]):
            self._go_on(self.rng.uniform(1.0, 4.0))
            self._go_on_until(lambda kind=kind: self._shoot(kind), f"there is a {kind} to kill")
            self.killed[kind] += 1
            self._say_progress((number + 1) / kills)
        self._go_on(3)

    def _shoot(self, kind: str) -> bool:
        pid = self._victim(kind)
        if pid is None:
            return False
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).kill()
        return True

    def _victim(self, kind: str) -> int | None:
        running = {
            "writer": lambda: [self.writer],
            "sensors": lambda: [self.sensors],
            "landing": lambda: [
                worker.process for worker in self.workers if worker.hour is None
            ],
            "run": lambda: [worker.process for worker in self.workers if worker.hour],
            "postgres": lambda: [postgres_of(self.data_dir)],
            "postgres backend": lambda: _backends(postgres_of(self.data_dir)),
            "s3": lambda: [s3_of(self.data_dir)],
        }[kind]()
        pids = [_pid(found) for found in running]
        return self.rng.choice([pid for pid in pids if pid] or [None])

    def _say_progress(self, share: float) -> None:
        aside = self.progress.with_suffix(".new")
        aside.write_text(f"{share:.4f}")
        aside.replace(self.progress)

    # -- running

    def _go_on(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._step(writes=True)

    def _go_on_until(self, done: Callable[[], bool], what: str, timeout_s: float = 600) -> None:
        until = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < until, f"{what}: not within {timeout_s} s"
            self._step(writes=True)

    def _step(self, *, writes: bool) -> None:
        """Start again what has died, take what the sensors ask for, and see how runs have ended."""
        if writes and not (self.writer and self.writer.is_alive()):
            self.lives += 1
            folder = Path(self.env["OBS_EVENTS_DIR"])
            self.writer = _start(write_for_ever, folder, self.hours, self.progress, self.lives)
        if not (self.sensors and self.sensors.is_alive()):
            self.requests, theirs = processes.processes.Pipe(duplex=False)
            self.sensors = _start(processes.tick_for_ever, self.env, theirs)
            theirs.close()
        for sensor, asked in self._asked():
            self._launch(sensor, asked)
        for worker in [worker for worker in self.workers if not worker.process.is_alive()]:
            self._bury(worker)
        time.sleep(0.05)

    def _asked(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        assert self.requests
        with contextlib.suppress(EOFError, OSError):
            while self.requests.poll():
                yield self.requests.recv()

    def _launch(self, sensor: str, asked: list[dict[str, Any]]) -> None:
        """Start runs as the queue does: one of an hour, one landing, a few in all; what is left is asked for again."""
        if sensor == "stale_hour_sensor":
            self.idle = 0 if asked else self.idle + 1
        for request in asked:
            job, hour = JOBS.get(sensor, "hourly_pipeline"), request["partition_key"]
            in_hand = any((worker.job, worker.hour) == (job, hour) for worker in self.workers)
            if (
                in_hand
                or len(self.workers) >= AT_A_TIME
                or self._is_used(sensor, request["run_key"])
            ):
                continue
            run_id = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
            request["tags"] |= {"dagster/sensor_name": sensor}
            if request["run_key"]:
                request["tags"] |= {"dagster/run_key": request["run_key"]}
            started = _start(processes.execute, self.env, job, run_id, request)
            self.workers.append(Worker(started, job, hour, run_id))

    def _is_used(self, sensor: str, run_key: str | None) -> bool:
        """Dagster starts no second run for a sensor's run key."""
        tags = {"dagster/sensor_name": sensor, "dagster/run_key": run_key or ""}
        with self._instance() as instance:
            return bool(run_key and instance.get_run_records(dg.RunsFilter(tags=tags), limit=1))

    def _bury(self, worker: Worker) -> None:
        """Say of a run whose process has ended that it failed, as the code server does."""
        self.workers.remove(worker)
        self.ended[worker.process.exitcode] += 1
        worker.process.close()
        with self._instance() as instance:
            run = instance.get_run_by_id(worker.run_id)
            if run and not run.is_finished:
                instance.report_run_failed(run)

    @contextlib.contextmanager
    def _instance(self) -> Iterator[dg.DagsterInstance]:
        with processes.instance_of(self.env) as instance:
            yield instance

    # -- the end

    def come_to_rest(self, timeout_s: float) -> None:
        """Stop writing; go on until nothing is left to do. Files count as idle, so that torn ends are given up."""
        self.writer.kill()
        self.writer.join()
        for path in Path(self.env["OBS_EVENTS_DIR"]).rglob("*"):
            if path.is_file():
                os.utime(path, (time.time() - 7200,) * 2)
        self.idle = 0
        until = time.monotonic() + timeout_s
        while self.workers or self.idle < 3 or self._has_more():
            assert time.monotonic() < until, (
                f"still at work after {timeout_s} s: {self.workers}"
            )
            self._step(writes=False)

    def _has_more(self) -> bool:
        hourly = self.hourly
        try:
            return bool(hourly.pending_files(hourly.listing()) or hourly.staleness().hours)
        except ObsError:
            return True

    def stop(self) -> None:
        """End everything."""
        for running in [
            self.writer,
            self.sensors,
            *(worker.process for worker in self.workers),
        ]:
            if running:
                running.kill()
                running.join()
        embedded.stop(self.data_dir)


def _start(target: Callable[..., None], *arguments: Any) -> Any:
    started = processes.processes.Process(target=target, args=arguments)
    started.start()
    return started


def _backends(server: process.Server) -> list[psutil.Process]:
    """PostgreSQL's processes that serve somebody."""
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(process.status(server).pid).children()
        return [child for child in children if "127.0.0.1(" in " ".join(child.cmdline())]
    return []


def _pid(found: Any) -> int | None:
    """Of a process that runs."""
    if isinstance(found, process.Server):
        return process.status(found).pid
    if isinstance(found, psutil.Process):
        return found.pid
    return found.pid if found and found.is_alive() else None
