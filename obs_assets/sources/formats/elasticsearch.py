"""Elasticsearch and OpenSearch: hits of a search or an export, and files for the bulk API.

A hit holds its document under ``_source``; the event is the document, with the hit's other fields (``_index``,
``_id``) beside its own. In a bulk file, a line with an action (``{"index": {"_id": "1"}}``) comes before each document;
an action is no event. https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk
"""

from collections.abc import Sequence

from obs_assets.sources.formats.base import Envelope, Event


def _document(record: Event, outer: Sequence[Event]) -> Event:
    del outer
    document = record["_source"]
    if not isinstance(document, dict):
        return record
    return document | {k: v for k, v in record.items() if k != "_source" and k not in document}


def _update(record: Event, outer: Sequence[Event]) -> Event:
    del outer
    document = record["doc"]
    return document if isinstance(document, dict) else record


def _is_event(record: Event) -> bool:
    """Whether an object with the key of an action is an event: an action names only where its document goes."""
    (target,) = record.values()
    if not isinstance(target, dict) or not target.keys() <= _TARGET:
        return True
    return bool(target) and not target.keys() & _NAMES


_NAMES = frozenset({"_index", "_id"})
"""Fields of which an action has at least one, unless it is empty."""
_TARGET = frozenset(
    {
        *("_index", "_id", "_type", "_routing", "routing", "pipeline", "require_alias"),
        *("require_data_stream", "list_executed_pipelines", "dynamic_templates"),
        *("retry_on_conflict", "version", "version_type", "if_seq_no", "if_primary_term"),
    }
)
"""Fields of an action."""

FORMATS = (
    Envelope(
        "elasticsearch",
        path=(),
        keys=frozenset({"doc"}),
        others=frozenset({"doc_as_upsert", "detect_noop", "upsert", "scripted_upsert"}),
        event=_update,
    ),
    Envelope("elasticsearch", path=(), keys=frozenset({"_index", "_source"}), event=_document),
    *(
        Envelope(
            "elasticsearch",
            path=(),
            keys=frozenset({action}),
            others=frozenset(),
            holds_events=_is_event,
        )
        for action in ("index", "create", "update", "delete")
    ),
)
"""The document of an update, a hit, and the actions of the bulk API."""
