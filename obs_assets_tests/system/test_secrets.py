"""Webserver, daemon and code server as three plain processes: nothing secret or personal shows anywhere."""

import random
import secrets

import pandas as pd
import pytest

from obs_assets.demo.agents import incidents
from obs_assets.demo.people import make_people
from obs_assets_tests import harness
from obs_assets_tests.system.canary import (
    everything,
    leaks,
    secrets_of,
    stored,
    watched_processes,
)
from obs_assets_tests.system.deployment import Deployment
from obs_assets_tests.system.steps import heal, hours_of_day, land, write

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]


def test_nothing_secret_or_personal_shows_anywhere(deployment: Deployment) -> None:
    """Good runs and failing ones; then databases, logs, answers, objects, alerts and process tables are searched."""
    good, broken, denied = hours = hours_of_day(7, 3, first=12)
    people = make_people(90, random.Random(secrets.randbits(32)))[
        -3:
    ]  # the first are mostly zeros
    for hour, person in zip(hours, people, strict=True):
        harness.write_events(
            deployment.events_dir / f"people-{hour.stamp}.jsonl",
            [
                {**event, "id": f"canary-{hour.stamp}"}
                for _, event in incidents(hour, person, random.Random(1))
            ],
        )
        with (deployment.events_dir / f"people-{hour.stamp}.jsonl").open("a") as file:
            file.write(f'{{"email": "{person.email}", "ssn": {person.ssn}\n')
            file.write(f'{{"timestamp": "{person.email}", "error": "{person.card}"}}\n')
        write(deployment, hour)
    wrong = {
        name: f"CANARY{secrets.token_hex(12)}"
        for name in ("POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY")
    }
    with watched_processes() as seen:
        land(deployment, *hours)
        chunks = deployment.hourly.log.chunk_paths(deployment.hourly.landed().hour(broken))
        kept = [chunk.read_bytes() for chunk in chunks]
        for chunk in chunks:
            chunk.write_bytes(b"PAR1" + chunk.read_bytes()[40:])
        deployment.restart("code", **wrong)
        for hour in (broken, denied):
            run_id = deployment.launch(hour, dagster__max_retries="0")
            assert deployment.wait_for_run(run_id, "FAILURE", "SUCCESS") == "FAILURE"
        deployment.restart("code")
        for chunk, content in zip(chunks, kept, strict=True):
            chunk.write_bytes(content)
        heal(deployment, good, broken, denied)

    # Of an address, its domain may be seen
    personal = [value.partition("@")[0] for person in people for value in person.values()]
    planted = [
        *personal,
        *(value.removeprefix("CANARY") for value in wrong.values()),
        *secrets_of(deployment),
    ]
    places = {**dict(everything(deployment)), "process tables": "\n".join(seen).encode()}
    assert leaks(places, planted) == set(), "by the number of what was planted"
    there = [
        name for name, content in places.items() if f"canary-{good.stamp}".encode() in content
    ]
    assert len(there) >= 3, "the search finds what may be seen"
    assert b"dagster-webserver" in places["process tables"]
    frame = pd.read_parquet(deployment.hourly.store.frame_path("raw_events", good))
    assert people[0].email in "".join(frame["event"])


def test_a_leak_that_was_cut_is_seen(deployment: Deployment) -> None:
    """The search above finds what a truncation has left of a secret, in each kind of place."""
    secret = secrets.token_hex(12)
    (hour,) = hours_of_day(7, 1, first=18)
    write(deployment, hour)
    land(deployment, hour)
    deployment.launch(hour, leak=f"key={secret[:13]}…")
    (deployment.logs / "leak.log").write_text(f"…{secret[5:20]}")
    heal(deployment, hour)
    found = {leak.removeprefix("0: ") for leak in leaks(dict(stored(deployment)), [secret])}
    assert found >= {
        "leak.log",
        "GraphQL",
        "Dagster's database, table run_tags",
        "Dagster's database, table runs",
    }
