"""Lists of Kubernetes, as audit webhooks send them: ``{"kind": "EventList", "apiVersion": …, "items": [{…}]}``.

An item is complete in itself: no field of the list around it is kept.
"""

from collections.abc import Sequence

from obs_assets.sources.formats.base import Envelope, Event


def _item(record: Event, outer: Sequence[Event]) -> Event:
    del outer
    return record


FORMAT = Envelope(
    "kubernetes",
    path=("items",),
    keys=frozenset({"kind", "apiVersion", "items"}),
    others=frozenset({"metadata"}),
    event=_item,
)
