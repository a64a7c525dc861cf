"""Asks Dagster's webserver to load the code location again.

This module speaks HTTP; it does not import Dagster.
"""

import contextlib
import json
import urllib.request

LOCATION = "obs_assets.definitions"
"""Module of the Dagster code location, and its name if a workspace gives it no other."""

WEBSERVER = "http://127.0.0.1:3000"
"""Address of the webserver if ``OBS_DAGSTER_URL`` is not set."""

_RELOAD = """
mutation Reload($location: String!) {
    reloadRepositoryLocation(repositoryLocationName: $location) { __typename }
}"""


def reload_code(address: str, location: str = LOCATION) -> bool:
    """Load the code again, because loaded code has fixed assets and partitions. False if that fails.

    Args:
        address: address of the webserver.
        location: name of the code location.
    """
    body = json.dumps({"query": _RELOAD, "variables": {"location": location}}).encode()
    request = urllib.request.Request(  # noqa: S310 - the settings allow http and https only
        f"{address.rstrip('/')}/graphql", body, {"Content-Type": "application/json"}
    )
    # A proxy of the environment cannot reach the loopback address of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, ValueError), opener.open(request, timeout=60) as answer:
        data = json.load(answer).get("data") or {}
        reloaded = data.get("reloadRepositoryLocation", {})
        # If the code cannot be loaded, the UI answers with another type.
        return bool(reloaded.get("__typename") == "WorkspaceLocationEntry")
    return False
