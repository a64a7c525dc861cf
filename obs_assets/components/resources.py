"""The client of the archive as a Dagster resource, made as ``obs`` makes it.

The client of dagster-aws lacks path-style addresses, our checksums and time limits. So its resource is
subclassed, and all code reaches a bucket in the same way. To assume a role or use a profile, pass an
``S3Resource`` to `pipeline_definitions` under the same key.
"""

from collections.abc import Callable, Mapping
from typing import Any

from dagster_aws.s3 import S3Resource

from obs_assets.components.keys import Naming
from obs_assets.delivery.kinds import asset_name, kind_of
from obs_assets.destinations.base import DestinationConfig
from obs_assets.destinations.s3 import S3Config
from obs_assets.destinations.s3.bucket import client_of
from obs_assets.destinations.s3.config import server_of
from obs_assets.hourly.hourly_pipeline import HourlyPipeline


def resource_key(naming: Naming, block: DestinationConfig) -> str | None:
    """Key of the resource that reaches the server of a destination; None if it needs no resource.

    The key is ``s3`` for a destination with the default name of its kind, else ``s3_<name>``.
    """
    kind = kind_of(block)
    if not kind.resource or not kind.needs_server(block):
        return None
    if asset_name(block) == kind.asset_name:
        return naming.job(kind.resource)
    return naming.job(f"{kind.resource}_{asset_name(block)}")


def client_resources(hourly: HourlyPipeline, naming: Naming) -> dict[str, Any]:
    """Key → resource, for the enabled destinations that need a resource."""
    found = {}
    for block in hourly.config.enabled_destinations:
        key = resource_key(naming, block)
        if key:
            found[key] = _RESOURCES[kind_of(block).resource](hourly, block)
    return found


def archive_resource(hourly: HourlyPipeline, block: S3Config) -> S3Resource:
    """The resource of an archive. Its fields show region and endpoint; credentials come from the AWS chain."""

    class ArchiveS3Resource(S3Resource):
        """Access to an archive's bucket, with its addressing style, checksums and time limits."""

        def get_client(self) -> Any:
            """A client. If the archive is on the embedded server, that is started."""
            fields = {"region": self.region_name, "endpoint_url": self.endpoint_url}
            given = {name: value for name, value in fields.items() if value}
            server = server_of(block, hourly.s3).model_copy(update=given)
            return client_of(
                block,
                server,
                profile=self.profile_name,
                verify=self.verify,
            )

        def get_object_to_set_on_execution_context(self) -> Any:
            """The resource itself, without a client.

            So a bucket that cannot be reached fails the archive's step, not the start of the run.
            """
            return self

    # The address of the embedded server is not asked for: that would start it while code is loaded.
    server = hourly.settings.s3 and server_of(block, hourly.settings.s3)
    attempts = block.max_retries + 1
    if not server:
        return ArchiveS3Resource(max_attempts=attempts)
    return ArchiveS3Resource(
        region_name=server.region,
        endpoint_url=server.endpoint_url,
        max_attempts=attempts,
    )


def client_from(resource: Any) -> Any:
    """The client of a resource in a run. In place of dagster-aws' own resource, Dagster gives its client."""
    if isinstance(resource, S3Resource):
        return resource.get_client()
    return resource


_RESOURCES: Mapping[str, Callable[[HourlyPipeline, Any], Any]] = {"s3": archive_resource}
"""`kinds.Kind.resource` → function that makes the resource. Only kinds with a resource have a row."""
