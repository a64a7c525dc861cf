"""Datadog's archives and answers of its API: ``{"id": …, "type": "log", "attributes": {"timestamp": …, …}}``.

The event is the object ``attributes``, with ``id`` and ``type``; its own ``attributes`` stay an object.
https://docs.datadoghq.com/api/latest/logs/#search-logs-post
"""

from collections.abc import Sequence

from obs_assets.sources.formats.base import Envelope, Event


def _log(record: Event, outer: Sequence[Event]) -> Event:
    del outer
    attributes = record["attributes"]
    is_log = isinstance(attributes, dict) and "timestamp" in attributes
    return {"id": record["id"], "type": record["type"]} | attributes if is_log else record


FORMAT = Envelope(
    "datadog",
    path=(),
    keys=frozenset({"id", "type", "attributes"}),
    others=frozenset(),
    event=_log,
)
