"""Elasticsearch's bulk API: the actions ``create`` and ``index``, answered item by item.

A document becomes a line in the form of a hit (``{"_index", "_id", "_source"}``), which landing's row
``elasticsearch`` makes an event of. A document without an id gets the hash of its request and its
number in it: if a request is sent twice, its events have the same ids.
https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from obs_assets.receive.bodies import RefusedError
from obs_assets.receive.exchange import Answer, Checked, Protocol, Request, json_answer
from obs_assets.receive.records import decoded, object_at

VERSION = "8.19.0"
"""Version of Elasticsearch whose bulk API this is; clients refuse servers that are too old."""

_PRODUCT = {"X-Elastic-Product": "Elasticsearch"}
"""Without this header, the official clients refuse to send."""

_WRITTEN = ("create", "index")
_OTHERS = ("update", "delete")
_BUSY = (429, 503)


def about_cluster() -> Answer:
    """Answer of ``GET /``, by which clients know the server."""
    about = {
        "name": "obs_assets",
        "cluster_name": "obs_assets",
        "cluster_uuid": "obs_assets",
        "version": {
            "number": VERSION,
            "build_flavor": "default",
            "minimum_wire_compatibility_version": "7.17.0",
            "minimum_index_compatibility_version": "7.0.0",
        },
        "tagline": "You Know, for Search",
    }
    return json_answer(200, about, **_PRODUCT)


def _check(request: Request) -> Checked:
    lines = [line for line in decoded(request.body).split("\n") if line.strip()]
    default_index = request.path.strip("/").removesuffix("_bulk").strip("/")
    content_id = hashlib.sha256(request.body).hexdigest()[:16]
    written: list[str] = []
    items: list[dict[str, Any]] = []
    position = 0
    while position < len(lines):
        action, target = _action(lines[position], len(items))
        position += 1
        index = str(target.get("_index") or default_index or "events")
        if action == "delete":
            items.append({action: _failed(index, "only create and index are received")})
            continue
        if position == len(lines):
            raise RefusedError(400, "the last action has no document")
        document = lines[position]
        position += 1
        if action == "update":
            items.append({action: _failed(index, "only create and index are received")})
            continue
        found, end = object_at(document.strip(), 0)
        if found.reason or end != len(document.strip()):
            items.append({action: _failed(index, found.reason or "not_json")})
            continue
        identity = str(target.get("_id") or f"{content_id}-{len(items)}")
        head = json.dumps({"_index": index, "_id": identity}, ensure_ascii=False)
        written.append(f'{head[:-1]},"_source":{found.text}}}\n')
        items.append({action: _created(index, identity)})
    if not items:
        raise RefusedError(400, "request body is required")
    failed = len(items) - len(written)
    answer = {"took": 0, "errors": bool(failed), "items": items}
    data = "".join(written).encode("utf-8", "surrogatepass")
    return Checked(data, json_answer(200, answer, **_PRODUCT), len(written), failed)


def _action(line: str, number: int) -> tuple[str, Mapping[str, Any]]:
    """Name and target of an action line."""
    found, _ = object_at(line.strip(), 0)
    value = found.value or {}
    if len(value) == 1:
        ((name, target),) = value.items()
        if name in (*_WRITTEN, *_OTHERS) and isinstance(target, dict | None):
            return name, target or {}
    raise RefusedError(400, f'item {number}: an action is expected, such as {{"create": {{}}}}')


def _created(index: str, identity: str) -> dict[str, Any]:
    return {
        "_index": index,
        "_id": identity,
        "_version": 1,
        "result": "created",
        "_shards": {"total": 1, "successful": 1, "failed": 0},
        "_seq_no": 0,
        "_primary_term": 1,
        "status": 201,
    }


def _failed(index: str, reason: str) -> dict[str, Any]:
    error = {"type": "document_parsing_exception", "reason": reason}
    return {"_index": index, "status": 400, "error": error}


def _refuse(error: RefusedError, content_type: str) -> Answer:
    del content_type
    kind = "illegal_argument_exception"
    if error.status in _BUSY:
        kind = "es_rejected_execution_exception"
    body = {"error": {"type": kind, "reason": error.detail}, "status": error.status}
    return json_answer(error.status, body, **_PRODUCT)


PROTOCOL = Protocol("bulk", _check, _refuse)
