"""Splunk: its HTTP Event Collector, and results of searches.

An object of the collector is ``{"time": …, "sourcetype": …, "event": …}``: the event is the object under
``event`` with the fields around it; a text becomes its ``message``. An object without ``sourcetype`` is no
such envelope: loggers have fields called ``event`` of their own. A search is exported as
``{"preview": …, "result": {…}}``: the result is the event.
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


def _result(record: Event, outer: Sequence[Event]) -> Event:
    del outer
    result = record["result"]
    return result if isinstance(result, dict) else record


def _has_result(record: Event) -> bool:
    """Whether an object of a search holds a result: the last object of an export may hold none."""
    return "result" in record


FORMATS = (
    Envelope(
        "splunk",
        path=(),
        keys=frozenset({"event", "sourcetype"}),
        others=frozenset({"time", "host", "source", "index", "fields"}),
        event=_event,
    ),
    Envelope(
        "splunk",
        path=(),
        keys=frozenset({"preview", "result"}),
        others=frozenset({"offset", "lastrow"}),
        event=_result,
    ),
    Envelope(
        "splunk",
        path=(),
        keys=frozenset({"preview", "lastrow"}),
        others=frozenset({"offset"}),
        holds_events=_has_result,
    ),
)
