"""A deployment of three plain processes for each file of tests."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
import pytest
import yaml

from obs_assets import embedded
from obs_assets.demo.receiver import Receiver
from obs_assets.embedded.dagster_home import SETTINGS, dagster_home
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.system.canary import SECRETS, leaks, secrets_of, stored
from obs_assets_tests.system.deployment import FAST, Deployment

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="module")
def deployment(
    servers: Settings,
    postgres_admin: "psycopg.Connection[tuple[object]]",
    s3_admin: "S3Client",
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """The default pipeline, deployed: code server, daemon and webserver run. In the end, no secret is anywhere."""
    folder = tmp_path_factory.mktemp("deployment")
    home = folder / "data" / "dagster"
    home.mkdir(parents=True)
    (folder / "events").mkdir()
    with (
        Receiver() as receiver,
        harness.own_place(servers, postgres_admin, s3_admin, folder / "data") as machine,
    ):
        storage = {
            "storage": {"postgres": {"postgres_url": {"env": "OBS_DAGSTER_POSTGRES_URL"}}}
        }
        (home / "dagster.yaml").write_text(yaml.safe_dump({**SETTINGS, **FAST, **storage}))
        url = f"{receiver.url}?token={SECRETS['WEBHOOK_URL']}"
        env = harness.environment(
            machine,
            folder / "events",
            **{**SECRETS, "WEBHOOK_URL": url},
            **dagster_home(machine.data_dir),
        )
        deployment = Deployment(machine, folder / "events", env, folder, receiver)
        deployment.write_workspace()
        try:
            for name in ("code", "daemon", "web"):
                deployment.start(name)
            yield deployment
            assert leaks(dict(stored(deployment)), secrets_of(deployment)) == set()
        finally:
            deployment.stop()
            embedded.stop(machine.data_dir)
