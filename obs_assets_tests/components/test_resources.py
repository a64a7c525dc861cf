"""The archive's bucket as a Dagster resource: dagster-aws' own, reached as ``obs`` reaches it."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_aws.s3 import S3Resource
from pydantic import SecretStr

from obs_assets.components import pipeline_definitions
from obs_assets.components.keys import Naming
from obs_assets.components.resources import archive_resource, resource_key
from obs_assets.destinations.s3 import S3Config
from obs_assets.destinations.s3.bucket import client_of
from obs_assets.destinations.s3.config import server_of
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import S3Settings, Settings
from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS, Deployment
from obs_assets_tests.harness import HOUR

pytestmark = DAGSTER_WARNINGS


def archive_of(deployment: Deployment) -> S3Config:
    (block,) = [
        block for block in deployment.config.destinations if isinstance(block, S3Config)
    ]
    return block


def test_it_is_dagsters_and_shows_no_key(deployment: Deployment) -> None:
    """An S3Resource under the key ``s3``, with the bucket's place in its fields and no credentials in them."""
    resource = deployment.definitions.resources["s3"]  # type: ignore[index]
    assert isinstance(resource, S3Resource)
    assert deployment.machine.s3
    assert (resource.endpoint_url, resource.region_name) == (
        deployment.machine.s3.endpoint_url,
        "us-east-1",
    )
    secret = deployment.machine.s3.secret_access_key
    assert secret
    assert secret.get_secret_value() not in json.dumps(resource.model_dump(), default=str)


def test_its_client_is_the_one_of_the_command_line(deployment: Deployment) -> None:
    """Same endpoint, addressing style, checksums, time limits, retries and credentials: one way to reach a bucket."""
    block = archive_of(deployment)
    resource = archive_resource(deployment.hourly, block)
    with_dagster, without = (
        resource.get_client(),
        client_of(block, server_of(block, deployment.hourly.s3)),
    )
    for client in (with_dagster, without):
        client.close()
    assert with_dagster.meta.endpoint_url == without.meta.endpoint_url
    names = [
        "s3",
        "retries",
        "connect_timeout",
        "read_timeout",
        "request_checksum_calculation",
        "region_name",
    ]
    assert [getattr(with_dagster.meta.config, n) for n in names] == [
        getattr(without.meta.config, n) for n in names
    ]
    keys = [
        c._request_signer._credentials.get_frozen_credentials() for c in (with_dagster, without)
    ]
    assert keys[0] == keys[1]


@pytest.mark.slow
def test_a_run_reaches_the_bucket_through_it(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive's step takes the resource that the code location names, dagster-aws' plain one for example."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    server = deployment.machine.s3
    assert server
    made: list[Any] = []

    class Counted(S3Resource):
        def get_client(self) -> Any:
            made.append(super().get_client())
            return made[-1]

    # A run that used the archive's own client would ask at an address where nobody listens.
    nowhere = server.model_copy(update={"endpoint_url": "http://127.0.0.1:9"})
    secret = server.secret_access_key
    own = Counted(
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=secret and secret.get_secret_value(),
    )
    config = deployment.config.model_copy(
        update={
            "destinations": tuple(
                b for b in deployment.config.destinations if isinstance(b, S3Config)
            )
        }
    )
    machine = deployment.machine.model_copy(update={"s3": nowhere})
    for job, hour in (("land_event_files", None), ("hourly_pipeline", HOUR.key)):
        # Loaded again after landing: Dagster knows the hours of the days that had landed by then.
        definitions = pipeline_definitions(config, machine=machine, resources={"s3": own})
        result = definitions.resolve_job_def(job).execute_in_process(
            instance=deployment.instance, partition_key=hour, raise_on_error=False
        )
        assert result.success
    assert len(made) == 1
    assert len(harness.objects(deployment.machine)) == 2


@pytest.mark.slow
def test_a_bucket_out_of_reach_fails_the_archive_alone(deployment: Deployment) -> None:
    """A profile that does not exist fails the archive's step with a sentence; the others hold the hour."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    broken = type(archive_resource(deployment.hourly, archive_of(deployment)))(
        profile_name="nobody"
    )
    with pytest.raises(ConfigurationError, match="'nobody'"):
        broken.get_client()
    assert deployment.land().success
    definitions = pipeline_definitions(
        deployment.config, machine=deployment.machine, resources={"s3": broken}
    )
    result = definitions.resolve_job_def("hourly_pipeline").execute_in_process(
        instance=deployment.instance, partition_key=HOUR.key, raise_on_error=False
    )
    assert {event.step_key for event in result.all_events if event.is_step_failure} == {
        "s3_archive"
    }
    assert deployment.hourly.destination("postgres_events").holding(HOUR)


def test_each_archive_has_its_own(tmp_path: Path) -> None:
    """Another archive, another pipeline, another key; a directory needs none."""
    machine = Settings(
        data_dir=tmp_path,
        s3=S3Settings(bucket="b", access_key_id="a", secret_access_key=SecretStr("s")),
    )
    config = harness.everything_kept(
        tmp_path,
        destinations=[
            {"type": "s3"},
            {"type": "s3", "name": "cold", "prefix": "cold", "region": "eu-west-1"},
            {"type": "s3", "name": "local", "bucket": f"file://{tmp_path}/archive"},
        ],
    )
    keys = [resource_key(Naming("", config), block) for block in config.destinations]
    assert keys == ["s3", "s3_cold", None]
    other = pipeline_definitions(config, "second", machine=machine)
    assert set(other.resources or {}) == {"second_s3", "second_s3_cold"}
    assert dg.Definitions.merge(pipeline_definitions(config, machine=machine), other)
    assert (
        archive_resource(HourlyPipeline(config, machine), config.destinations[1]).region_name
        == "eu-west-1"
    )  # type: ignore[arg-type]
