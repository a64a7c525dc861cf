"""The archive's client as a Dagster resource, made as ``obs`` makes it.

dagster-aws' client lacks path-style addresses, our checksums and time limits, so its resource is subclassed: there is
one way to reach a bucket. Whoever needs another (a role to assume, a profile) passes an ``S3Resource`` to
`pipeline_definitions` under the same key.
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
    """Key of the resource that reaches a destination's server, for example ``s3`` or ``s3_<name>``.

    The first is for a destination with its kind's own name. None where a kind has no resource, or a
    block needs no server.
    """
    kind = kind_of(block)
    if not kind.resource or not kind.needs_server(block):
        return None
    if asset_name(block) == kind.asset_name:
        return naming.job(kind.resource)
    return naming.job(f"{kind.resource}_{asset_name(block)}")


def client_resources(hourly: HourlyPipeline, naming: Naming) -> dict[str, Any]:
    """The resources of the enabled destinations, by key."""
    found = {}
    for block in hourly.config.enabled_destinations:
        key = resource_key(naming, block)
        if key:
            found[key] = _RESOURCES[kind_of(block).resource](hourly, block)
    return found


def archive_resource(hourly: HourlyPipeline, block: S3Config) -> S3Resource:
    """The resource of an archive. Its fields show where the bucket is; credentials come from the standard AWS chain."""

    class ArchiveS3Resource(S3Resource):
        """Access to an archive's bucket, with its addressing style, checksums and time limits."""

        def get_client(self) -> Any:
            """A client, the embedded server started where that is what is used."""
            said = {"region": self.region_name, "endpoint_url": self.endpoint_url}
            server = server_of(block, hourly.s3).model_copy(
                update={k: v for k, v in said.items() if v}
            )
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


_RESOURCES: Mapping[str, Callable[[HourlyPipeline, Any], Any]] = {"s3": archive_resource}
"""Prefix of a resource's key → makes the resource. A kind without a resource needs no row here."""
