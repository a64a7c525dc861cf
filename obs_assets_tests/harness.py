"""Real runs, seen from outside: event files, commands in a clean environment, and all that an hour left behind."""

import contextlib
import gzip
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import yaml
from psycopg import sql

from obs_assets.audit.verify import HourCheck, verify
from obs_assets.demo.receiver import Received
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour
from obs_assets.settings import PostgresSettings, Settings
from obs_assets.storage.engine import connect
from obs_assets_tests.conftest import connect_postgres, connect_s3
from obs_assets_tests.frames import HOUR

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PROJECT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

# -- event files -------------------------------------------------------------------------------------------------------


def an_hour(hour: Hour = HOUR) -> list[dict[str, Any]]:
    """The events of an hour as agents write them: work, failures, personal data, an id used thrice, and noise."""
    work: list[dict[str, Any]] = [
        {
            "id": f"evt-{number}",
            "type": "task_completed",
            "level": "info",
            "master_type": "coordinator",
            "data": {
                "status": "completed",
                "task": number,
                "note": f"ask agent{number}@example.com",
            },
            "started_at": f"{hour.start:%Y-%m-%dT%H}:00:00Z",
            "completed_at": f"{hour.start:%Y-%m-%dT%H}:00:{number:02}.5Z",
            "tokens_used": {"input_tokens": 1000 * number, "output_tokens": 10},
        }
        for number in range(20)
    ]
    failures: list[dict[str, Any]] = [
        {
            "id": f"err-{number}",
            "type": "task_failed",
            "level": "error",
            "error": f"no answer from 10.1.2.{number}",
            "data": {"status": "failed", "owner": "Jane, +1 555 867 5309"},
        }
        for number in range(5)
    ]
    shared = [
        {"id": "evt-shared", "type": f"zombie_{kind}", "data": kind}
        for kind in ("detected", "ended", "cleaned")
    ]
    noise: list[dict[str, Any]] = [
        {"type": "heartbeat", "level": "info"},
        {"type": "trace", "level": "debug"},
    ] * 3
    events = [*work, *failures, *shared, *noise]
    return [at(hour, 30 * second, event) for second, event in enumerate(events)]


def at(hour: Hour, second: int, event: dict[str, Any]) -> dict[str, Any]:
    """The event with a time within the hour."""
    return {
        "timestamp": f"{hour.start:%Y-%m-%dT%H}:{second // 60:02}:{second % 60:02}.250Z",
        **event,
    }


def write_events(path: Path, events: Iterable[dict[str, Any]]) -> Path:
    """Append events to a file, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(event, ensure_ascii=False) + "\n" for event in events)
    return path


# -- a pipeline in this process ----------------------------------------------------------------------------------------


def everything_kept(events_dir: Path, url: str | None = None, **others: Any) -> PipelineConfig:
    """The default pipeline without sampling, for those who count events; alerts go to ``url``."""
    webhook = {
        "type": "webhook",
        "payload_format": "object",
        "url": url,
        "allow_hosts": ["127.0.0.1"],
        "max_retries": 1,
        "max_age_hours": None,
    }
    values: dict[str, Any] = {
        "source": {"events_dir": str(events_dir)},
        "enrich": {"enrichments": ["all"]},
        "filter": {"drop_levels": ["debug"]},
        "destinations": [{"type": "postgres"}, {"type": "s3"}, webhook],
    }
    return pipeline.parse({**values, **others})


def write_pipeline(folder: Path, config: PipelineConfig) -> Path:
    """Write the file of the default pipeline with these options; returns the folder of pipelines, ``folder``."""
    attributes = config.model_dump(mode="json", exclude_unset=True, round_trip=True)
    attributes["asset_prefix"] = ""
    file = folder / "events" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump({"type": pipeline.COMPONENT_TYPE, "attributes": attributes}))
    return folder


def build(hourly: HourlyPipeline, *hours: Hour) -> None:
    """Bring hours from what has landed to every destination."""
    for hour in hours:
        for stage in STAGES:
            hourly.build(stage, hour)
        for name in hourly.destination_names:
            hourly.deliver(name, hour)


@contextmanager
def cores(number: int) -> Iterator[None]:
    """Let this process run on so few cores, of which DuckDB takes a thread each."""
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def wrong(hourly: HourlyPipeline, hour: Hour = HOUR) -> list[HourCheck]:
    """What ``obs verify`` finds."""
    return [verdict for verdict in verify(hourly, hour) if not verdict.ok]


# -- commands ----------------------------------------------------------------------------------------------------------


def environment(
    machine: Settings, events_dir: Path | None = None, **others: str
) -> dict[str, str]:
    """The whole environment of a command: the test's servers, and nothing of whoever runs the tests."""
    home = machine.data_dir.parent / "home"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(PROJECT / "dagster.yaml", home)
    found = {
        "PATH": f"{BIN}:{os.defpath}",
        "HOME": str(home),
        "DAGSTER_HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "200",
        "OBS_DATA_DIR": str(machine.data_dir),
        "OBS_EVENTS_DIR": str(events_dir) if events_dir else "",
        "OBS_WEBHOOK_ALLOW_PRIVATE": "true",
        "OBS_WEBHOOK_SEND_OLD": "true",
    }
    if server := machine.postgres:
        password = server.password.get_secret_value() if server.password else ""
        found |= {
            "POSTGRES_HOST": server.host,
            "POSTGRES_PORT": str(server.port),
            "POSTGRES_DB": server.database,
        }
        found |= {"POSTGRES_USER": server.user, "POSTGRES_PASSWORD": password}
    if bucket := machine.s3:
        secret = bucket.secret_access_key.get_secret_value() if bucket.secret_access_key else ""
        found |= {
            "AWS_S3_BUCKET": bucket.bucket,
            "AWS_ENDPOINT_URL_S3": bucket.endpoint_url or "",
        }
        found |= {
            "AWS_ACCESS_KEY_ID": bucket.access_key_id or "",
            "AWS_SECRET_ACCESS_KEY": secret,
        }
        found |= {"AWS_REGION": bucket.region}
    return {name: value for name, value in {**found, **others}.items() if value}


@dataclass(frozen=True)
class Done:
    """What became of a command; ``code`` is negative when a signal ended it."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All that it printed."""
        return self.out + self.err


def run(
    *command: str | Path, env: Mapping[str, str], cwd: Path = PROJECT, stdin: str = ""
) -> Done:
    """Run a program of this project's ``.venv`` to its end."""
    program, *arguments = map(str, command)
    done = subprocess.run(
        [str(BIN / program), *arguments],
        env=dict(env),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=600,  # what takes seconds takes minutes on a busy machine
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


# -- servers -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def own_place(
    machine: Settings,
    admin: "psycopg.Connection[tuple[object]]",
    s3_admin: "S3Client",
    data_dir: Path,
) -> Iterator[Settings]:
    """A database, a bucket and a data folder, as the fixture ``settings`` gives them, for longer than one test."""
    assert machine.postgres
    assert machine.s3
    name = f"own-{secrets.token_hex(6)}"
    database = sql.Identifier(name)
    admin.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(database))
    s3_admin.create_bucket(Bucket=name)
    yield Settings(
        data_dir=data_dir,
        postgres=machine.postgres.model_copy(update={"database": name}),
        s3=machine.s3.model_copy(update={"bucket": name}),
    )
    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))
    s3_admin.delete_bucket(Bucket=name)


def ask(
    server: PostgresSettings | None, query: LiteralString, *parameters: Any
) -> list[tuple[Any, ...]]:
    """The rows that a query gives to somebody who knows nothing of us; none where its table does not exist."""
    assert server
    with connect_postgres(server) as connection:
        try:
            cursor = connection.execute(query, parameters or None)
        except psycopg.errors.UndefinedTable:
            return []
        return cursor.fetchall() if cursor.description else []


def objects(machine: Settings) -> dict[str, bytes]:
    """All that the bucket holds, by key."""
    assert machine.s3
    with contextlib.closing(connect_s3(machine.s3)) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=machine.s3.bucket)
        keys = [stored["Key"] for page in pages for stored in page.get("Contents", [])]
        return {
            key: client.get_object(Bucket=machine.s3.bucket, Key=key)["Body"].read()
            for key in keys
        }


def lines_of(stored: Mapping[str, bytes], hour: Hour) -> list[dict[str, Any]]:
    """The events of an hour in a bucket's objects."""
    bodies = [
        body
        for key, body in stored.items()
        if f"events-{hour.stamp}" in key and key.endswith(".gz")
    ]
    return [json.loads(line) for body in bodies for line in gzip.decompress(body).splitlines()]


def alerts(received: Iterable[Received]) -> list[dict[str, Any]]:
    """The events that a receiver got; every repetition of a dispatch must have brought the same bytes."""
    bodies: dict[str, bytes] = {}
    for request in received:
        assert bodies.setdefault(request.webhook_id, request.body) == request.body
    return [event for body in bodies.values() for event in json.loads(body)["events"]]


# -- what an hour left -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """All that an hour is, without what may differ between two runs: when, by which run, in how many attempts.

    Attributes:
        frames: stage → its rows, in order.
        receipts: stage → its receipt.
        rows: of the table, but for ``created_at``.
        ledgers: destination → generation, configuration, rows and content.
        objects: key → SHA-256.
        alerts: ``webhook-id`` → the events of its body.
    """

    frames: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    receipts: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    ledgers: list[tuple[Any, ...]] = field(default_factory=list)
    objects: dict[str, str] = field(default_factory=dict)
    alerts: dict[str, Any] = field(default_factory=dict)


_ROWS: LiteralString = (
    "SELECT (to_jsonb(e) - 'created_at')::text FROM events e WHERE hour = %s ORDER BY row_uid"
)
_LEDGERS: LiteralString = """
SELECT destination, generation, config_hash, code_version, rows, content_hash FROM obs.hour_loads
WHERE hour = %s ORDER BY destination"""


def snapshot(
    hourly: HourlyPipeline, received: Iterable[Received] = (), hour: Hour = HOUR
) -> Snapshot:
    """Take a snapshot; every repetition of a dispatch must have brought the same bytes."""
    found = Snapshot(
        rows=ask(hourly.settings.postgres, _ROWS, hour.start),
        ledgers=ask(hourly.settings.postgres, _LEDGERS, hour.start),
        objects={
            key: hashlib.sha256(body).hexdigest()
            for key, body in objects(hourly.settings).items()
        },
    )
    with connect(hourly.store.temp_dir) as connection:
        for stage in STAGES:
            if hourly.store.frame_path(stage, hour).exists():
                found.frames[stage] = hourly.store.read_frame(
                    connection, stage, hour
                ).fetchall()
            if hourly.store.receipt_path(stage, hour).exists():
                found.receipts[stage] = hourly.store.receipt_path(stage, hour).read_text()
    bodies: dict[str, bytes] = {}
    for request in received:
        assert bodies.setdefault(request.webhook_id, request.body) == request.body
    found.alerts.update(
        {webhook_id: json.loads(body)["events"] for webhook_id, body in bodies.items()}
    )
    return found


def leftovers(machine: Settings) -> list[str]:
    """Whatever only a killed run leaves: files written aside, spilled frames, tables of staging, open uploads."""
    assert machine.s3
    root = machine.data_dir / "pipelines"
    found = [
        str(path.relative_to(root)) for path in [*root.rglob("*.tmp"), *root.glob("*/tmp/*")]
    ]
    staging = """
        SELECT relname FROM pg_class
        WHERE relkind IN ('r', 'p') AND (relpersistence <> 'p' OR relname ~ 'stg|tmp')"""
    found += [str(name) for (name,) in ask(machine.postgres, staging)]
    with contextlib.closing(connect_s3(machine.s3)) as client:
        uploads = client.list_multipart_uploads(Bucket=machine.s3.bucket).get("Uploads", [])
    return found + [upload["Key"] for upload in uploads]


def tree(folder: Path) -> list[str]:
    """Every file and folder below a folder."""
    return (
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        if folder.exists()
        else []
    )
