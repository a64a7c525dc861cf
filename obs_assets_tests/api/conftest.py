"""A server over a table with a few hours of events, shared by the tests of a module."""

import secrets
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from starlette.testclient import TestClient

from obs_assets.api.app import make_app
from obs_assets.api.reader import ROLE, Limits
from obs_assets.api.serving import Stop
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.settings import Settings
from obs_assets.storage import engine
from obs_assets_tests.frames import HOUR, frame_of, offer_of

Load = Callable[..., None]

HOURS = (HOUR, HOUR.next)


def some_events(hour: Hour) -> list[dict[str, Any]]:
    """Twelve events of an hour: levels, types, masters, workers, errors, durations, costs, big numbers, ties."""
    made = []
    for number in range(12):
        at = hour.start + timedelta(minutes=5 * (number // 2))
        event: dict[str, Any] = {
            "id": f"{hour.stamp}-{number}",
            "type": ("task", "beat", "note")[number % 3],
            "timestamp": at.isoformat(),
            "message": f"message {number}",
            "n": number,
            "big": 9007199254740993,
        }
        if number % 4:
            event["level"] = ("info", "warning", "error")[number % 4 - 1]
        if number % 4 == 3:
            event["error"] = f"refused {number}"
        if number % 2:
            event |= {"master": f"m{number % 5}", "worker": "w1", "worker_id": f"id-{number}"}
            event |= {"duration_ms": 10 * number, "cost": number / 8}
        made.append(event)
    return made


@pytest.fixture(scope="module")
def hourly(
    servers: Settings,
    postgres_admin: "psycopg.Connection[tuple[object]]",
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[HourlyPipeline]:
    """A pipeline with an empty table in a database of its own."""
    assert servers.postgres
    name = f"api-{secrets.token_hex(6)}"
    database = sql.Identifier(name)
    postgres_admin.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(database))
    folder = tmp_path_factory.mktemp("api")
    settings = Settings(
        data_dir=folder / "data",
        postgres=servers.postgres.model_copy(update={"database": name}),
    )
    source = {"events_dir": str(folder / "events")}
    config = pipeline.parse({"source": source, "destinations": [{"type": "postgres"}]})
    made = HourlyPipeline(config, settings)
    made.searched_table().init(reader=ROLE)
    yield made
    postgres_admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))


@pytest.fixture(scope="module")
def load(hourly: HourlyPipeline, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Loads an hour's events into the table: ``load(hour, events, generation=1, weight=1.0)``."""
    folder: Path = tmp_path_factory.mktemp("spill")

    def loaded(
        hour: Hour, events: list[dict[str, Any]], generation: int = 1, weight: float = 1.0
    ) -> None:
        with engine.connect(temp_dir=folder) as duck:
            frame = frame_of(duck, events, hour, weight)
            hourly.searched_table().deliver(offer_of(frame, hour, generation))

    return loaded


@pytest.fixture(scope="module")
def stored(load: Load) -> list[dict[str, Any]]:
    """The events of `HOURS`, each stored with a weight of 10."""
    events = []
    for hour in HOURS:
        load(hour, some_events(hour), weight=10.0)
        events += some_events(hour)
    return events


@pytest.fixture(scope="module")
def client(hourly: HourlyPipeline) -> Iterator[TestClient]:
    """A client of a server in this process."""
    app = make_app(hourly, Stop(), Limits())
    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened


def moment_of(event: dict[str, Any]) -> datetime:
    """Time of an event."""
    return datetime.fromisoformat(event["timestamp"])
