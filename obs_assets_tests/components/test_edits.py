"""A pipeline file is edited again and again while sensors, `obs serve` and `obs receive` run."""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import dagster as dg
import pyarrow.parquet as pq
import pytest
import requests

from obs_assets.api.reader import ROLE
from obs_assets.components.project import project_definitions
from obs_assets.hourly.pipeline_files import open_pipeline
from obs_assets.hourly.present import SETTLED_S
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.api.process import free_port
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS
from obs_assets_tests.receive.conftest import wait_for

pytestmark = [*DAGSTER_WARNINGS, pytest.mark.soak]

TEXT = """\
type: obs_assets.components.ObservabilityPipeline
attributes:
  asset_prefix: ""
  allowed_lateness_minutes: {first}
  destinations: [{{type: postgres, pool_size: {pool}}}]
  source: {{events_dir: {folder}, seal_after_minutes: 0}}
  retention_days: {last}
"""

MISTAKES = (
    "  sample: {success_rat: 1}\n",
    "  filter: [\n",
    "  retention_days: none\n",
    "nonsense\n",
)

CHANGE = re.compile(
    r"has changed: allowed_lateness_minutes \d+ → (\d+).*retention_days \d+ → (\d+)"
)
"""The log's words about a change: both numbers, or the file was not whole."""

BATCH = 20


class Editor:
    """Writes the pipeline file in all ways that editors have.

    Two settings far from each other carry the same number. So half of a file is seen.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.file = root / "pipelines" / "events" / "defs.yaml"
        self.file.parent.mkdir(parents=True)
        self.folders = [root / "a", root / "b"]
        self.random = random.Random(seed)
        self.number = 0
        self.stalls = 0
        for folder in self.folders:
            folder.mkdir()
        self.renamed(self.next())

    def next(self) -> str:
        """The text of a valid change."""
        self.number += 1
        return TEXT.format(
            first=self.number,
            last=self.number + 1000,
            pool=2 + self.number % 2,
            folder=self.random.choice(self.folders),
        )

    def edit(self) -> None:
        """A random edit."""
        way = self.random.choice([self.renamed, self.in_place, self.in_halves, self.wrong])
        way(self.next())

    def renamed(self, text: str) -> None:
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(self.file)

    def in_place(self, text: str) -> None:
        self.file.write_text(text)

    def in_halves(self, text: str) -> None:
        """With pauses after a random part, too short for a reader to take it for the whole."""
        for end in sorted(self.random.sample(range(len(text)), 2)):
            self.file.write_text(text[:end])
            began = time.monotonic()
            time.sleep(self.random.random())
            # A busy machine can make the pause longer than readers wait: then they are right.
            self.stalls += time.monotonic() - began > SETTLED_S - 0.5
        self.file.write_text(text)

    def wrong(self, text: str) -> None:
        self.renamed(text + self.random.choice(MISTAKES))


class Sensors:
    """A code server's sensor and the runs that it requests, one after another."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        self.definitions = project_definitions(env)

    def tick(self, instance: dg.DagsterInstance) -> int:
        """Evaluate the sensor and execute the run that it requests; the number of runs."""
        with dg.build_sensor_context(
            instance=instance, definitions=self.definitions
        ) as context:
            sensor = self.definitions.resolve_sensor_def("event_file_sensor")
            requested = sensor.evaluate_tick(context).run_requests or []
        for request in requested:
            # The process of a run loads the definitions anew.
            job = project_definitions(self.env).resolve_job_def("land_event_files")
            assert job.execute_in_process(request.run_config, instance=instance).success
        return len(requested)


def send(url: str, stop: threading.Event) -> list[int]:
    """Send requests until the end, each until it is acknowledged; the acknowledged numbers."""
    acknowledged: list[int] = []
    for batch in itertools.count():
        numbers = range(batch * BATCH, (batch + 1) * BATCH)
        body = "".join(f'{{"time": 1735738000, "n": {n}}}\n' for n in numbers)
        while not stop.is_set():
            answer = requests.post(f"{url}/events", data=body, timeout=30)
            assert answer.status_code in {200, 429}
            if answer.ok:
                acknowledged += numbers
                break
            time.sleep(0.1)
        if stop.wait(0.05):
            return acknowledged
    return acknowledged


def ask(url: str, stop: threading.Event) -> Counter[int]:
    """Ask the server until the end; the statuses of its answers."""
    statuses: Counter[int] = Counter()
    while not stop.wait(1):
        for path in ("/healthz", "/api/v1/events?limit=1", "/api/v1/hours"):
            statuses[requests.get(f"{url}{path}", timeout=30).status_code] += 1
    return statuses


def start(
    stack: ExitStack, command: str, port: int, env: dict[str, str], log: IO[bytes]
) -> str:
    """Start a server as a process; its address, once it answers."""
    process = stack.enter_context(
        subprocess.Popen([harness.BIN / "obs", command], env=env, stdout=log, stderr=log)
    )
    stack.callback(process.send_signal, signal.SIGTERM)
    url = f"http://127.0.0.1:{port}"
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        with suppress(requests.ConnectionError):
            requests.get(f"{url}/healthz", timeout=5)
            return url
        assert process.poll() is None, Path(log.name).read_text()
        time.sleep(0.1)
    raise AssertionError(f"obs {command} does not answer")


def numbers_in(log: str, stalls: int) -> list[int]:
    """0, and the numbers that a program followed, each from a whole file."""
    changes = [line for line in log.splitlines() if "has changed: " in line]
    whole = [
        int(found[1]) for line in changes if (found := CHANGE.search(line)) and is_pair(found)
    ]
    assert len(changes) - len(whole) <= stalls, changes
    return [0, *whole]


def is_pair(found: re.Match[str]) -> bool:
    """Whether both numbers of a change come from one file."""
    return int(found[2]) == int(found[1]) + 1000


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("edits", [20, 200])
def test_edits_while_everything_runs(
    edits: int, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing uses half of a file, each program has the last text soon, and no acknowledged event is lost."""
    caplog.set_level("INFO", "obs_assets")
    editor = Editor(tmp_path, int(os.environ.get("SOAK_SEED") or 23))
    ports = {"serve": free_port(), "receive": free_port()}
    env = {
        **harness.environment(settings, tmp_path / "unused"),
        "OBS_PIPELINES_DIR": str(tmp_path / "pipelines"),
        "OBS_API_PORT": str(ports["serve"]),
        "OBS_RECEIVE_PORT": str(ports["receive"]),
    }
    open_pipeline(env=env).searched_table().init(reader=ROLE)
    logs = {name: tmp_path / f"{name}.log" for name in ports}
    stop = threading.Event()
    with dg.DagsterInstance.ephemeral() as instance, ExitStack() as stack:
        opened = {name: stack.enter_context(path.open("wb")) for name, path in logs.items()}
        urls = {name: start(stack, name, ports[name], env, opened[name]) for name in ports}
        threads = stack.enter_context(ThreadPoolExecutor(2))
        stack.callback(stop.set)
        sent = threads.submit(send, urls["receive"], stop)
        asked = threads.submit(ask, urls["serve"], stop)
        sensors = Sensors(env)
        for number in range(edits):
            editor.edit()
            time.sleep(editor.random.random() / 2)
            # A look waits until the file rests: some edits are overtaken by the next.
            if number % 3 == 0:
                sensors.tick(instance)
        editor.renamed(editor.next())
        wait_for(
            lambda: (
                {numbers_in(path.read_text(), editor.stalls)[-1] for path in logs.values()}
                == {editor.number}
            )
        )
        stop.set()
        acknowledged = sent.result()
        assert set(asked.result()) == {200}
        # The receiver moves its files into a changed folder after its log has named the change.
        wait_for(lambda: land_all(sensors, instance, env, acknowledged), seconds=60)
    assert numbers_in("\n".join(caplog.messages), editor.stalls)[-1] == editor.number
    assert len(acknowledged) > edits * BATCH / 2
    assert set(Counter(landed_numbers(env)).values()) == {1}


def land_all(
    sensors: Sensors, instance: dg.DagsterInstance, env: dict[str, str], wanted: list[int]
) -> bool:
    """Land what there is; whether all these numbers have landed."""
    sensors.tick(instance)
    return set(wanted) <= set(landed_numbers(env))


def landed_numbers(env: dict[str, str]) -> Iterator[int]:
    """The numbers of all landed events."""
    log = open_pipeline(env=env).log
    for hour in log.load().hours.values():
        for path in log.chunk_paths(hour):
            for line in pq.read_table(path)["line"].to_pylist():
                yield json.loads(line)["n"]
