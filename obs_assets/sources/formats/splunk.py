"""Splunk's HTTP Event Collector: ``{"time": …, "sourcetype": …, "event": …}``.

The event is the object under ``event`` with the fields around it; a text becomes its ``message``. An
object without ``sourcetype`` is no such envelope: loggers have fields called ``event`` of their own.
"""

from collections.abc import Sequence

from obs_assets.sources.formats.base import Envelope, Event


def _event(record: Event, outer: Sequence[Event]) -> Event:
    del outer
    content = record["event"]
    if not isinstance(content, dict):
        content = {"message": content}
    about = {name: value for name, value in record.items() if name not in {"event", "fields"}}
    fields = record.get("fields")
    if isinstance(fields, dict):
        about = {**fields, **about}
    return {**content, **{k: v for k, v in about.items() if k not in content}}


FORMAT = Envelope(
    "splunk",
    path=(),
    keys=frozenset({"event", "sourcetype"}),
    others=frozenset({"time", "host", "source", "index", "fields"}),
    event=_event,
)
