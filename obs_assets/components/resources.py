"""The archive's client as a Dagster resource, made as ``obs`` makes it.

dagster-aws' client lacks path-style addresses, our checksums and time limits, so its resource is subclassed: there is
one way to reach a bucket. Whoever needs another (a role to assume, a profile) passes an ``S3Resource`` to
`pipeline_definitions` under the same key.
"""

from typing import Any

from dagster_aws.s3 import S3Resource

from obs_assets.components.keys import Naming
from obs_assets.destinations.base import DestinationConfig
from obs_assets.destinations.s3 import S3Config
from obs_assets.destinations.s3.bucket import client_of
from obs_assets.destinations.s3.config import server_of
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import asset_name

DEFAULT_NAME = "s3_archive"


def resource_key(naming: Naming, block: DestinationConfig) -> str | None:
    """``s3``, or of another archive than the first ``s3_<name>``; None for what is in no bucket."""
    if not isinstance(block, S3Config) or block.is_local:
        return None
    name = asset_name(block)
    return naming.job("s3" if name == DEFAULT_NAME else f"s3_{name}")


def archive_resource(hourly: HourlyPipeline, block: S3Config) -> S3Resource:
    """The resource of an archive. Its fields show where the bucket is; credentials come from the standard AWS chain."""

    class ArchiveS3Resource(S3Resource):
        """Access to an archive's bucket, with its addressing style, checksums and time limits."""

        def get_client(self) -> Any:
            """A client, the embedded server started where that is what is used."""
            said = {"region": self.region_name, "endpoint_url": self.endpoint_url}
            server = server_of(block, hourly.s3).model_copy(update={k: v for k, v in said.items() if v})
            return client_of(block, server, profile=self.profile_name, verify=self.verify)

        def get_object_to_set_on_execution_context(self) -> Any:
            """Itself: a bucket that cannot be reached fails the archive's step, not the run at its start."""
            return self

    server = hourly.settings.s3 and server_of(block, hourly.settings.s3)
    return ArchiveS3Resource(
        region_name=server.region if server else None,
        endpoint_url=server.endpoint_url if server else None,
        max_attempts=block.max_retries + 1,
    )


def client_from(resource: Any) -> Any:
    """The client of a resource in a run: dagster-aws' own hands out the client itself."""
    return resource.get_client() if isinstance(resource, S3Resource) else resource
