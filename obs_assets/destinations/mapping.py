"""Mappings: the names that the values of an event have at a destination, a row of `SCHEMAS` each.

A mapping names the promoted columns, and values that are computed from them, as a public schema does. It
never changes the event itself, which each destination keeps beside these names. A value without a name in
the schema has a name of ours that begins with ``obs.``, or is left out.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from obs_assets.events import MEANINGS, quote
from obs_assets.severities import LEVELS

MappingName: TypeAlias = Literal["none", "otel", "ecs", "datadog", "splunk_cim"]

ValueKind: TypeAlias = Literal["time", "keyword", "text", "long", "double"]

SEVERITY_NUMBERS: Mapping[str, int] = {
    "trace": 1,
    "debug": 5,
    "info": 9,
    "success": 9,
    "notice": 10,
    "warning": 13,
    "error": 17,
    "critical": 18,
    "alert": 19,
    "fatal": 21,
    "emergency": 21,
}
"""Level → SeverityNumber of OpenTelemetry's log data model, by its appendix for syslog."""

CIM_SEVERITIES: Mapping[str, str] = {
    **dict.fromkeys(("critical", "alert", "fatal", "emergency"), "critical"),
    "error": "high",
    "warning": "medium",
    "notice": "low",
    **dict.fromkeys(("info", "success", "debug", "trace"), "informational"),
}
"""Level → value of ``severity`` that Splunk's data model Alerts prescribes."""


@dataclass(frozen=True)
class Value:
    """A value of an event.

    Attributes:
        sql: SQL of the value, with `COLUMNS` as its columns.
        meaning: meaning and unit, for the catalogue.
        kind: kind of the value.
    """

    sql: str
    meaning: str
    kind: ValueKind = "keyword"

    @property
    def json(self) -> str:
        """SQL over a frame of the value as JSON; NULL for no value."""
        return self.json_of_at_most()

    def json_of_at_most(self, characters: int | None = None) -> str:
        """The same, with texts cut after a number of characters."""
        value = of_frame(self.sql)
        match self.kind:
            case "time":
                return f"strftime({value} AT TIME ZONE 'UTC', '\"%Y-%m-%dT%H:%M:%S.%fZ\"')"
            case "long" | "double":
                return f"({value})::VARCHAR"
        if characters:
            value = f"left({value}, {characters})"
        return f"to_json({value})::VARCHAR"


def _by_level(values: Mapping[str, Any]) -> str:
    cases = " ".join(f"WHEN {quote(level)} THEN {values[level]}" for level in LEVELS)
    return f"CASE event_level {cases} END"


def _column(name: str, kind: ValueKind = "keyword") -> Value:
    return Value(name, MEANINGS[name], kind)


VALUES: Mapping[str, Value] = {
    "event_time": Value("{event_time}", MEANINGS["event_time"], "time"),
    "time_unix_ns": Value("{time_unix_ns}", "event_time in nanoseconds since 1970", "long"),
    "message": Value("{message}", "message or msg", "text"),
    "event_id": _column("event_id"),
    "event_type": _column("event_type"),
    "event_level": _column("event_level"),
    "severity_number": Value(
        _by_level(SEVERITY_NUMBERS), "event_level as a number of OpenTelemetry", "long"
    ),
    "severity": Value(
        _by_level({level: quote(name) for level, name in CIM_SEVERITIES.items()}),
        "event_level as Splunk's data model Alerts names it",
    ),
    "source_name": _column("source_name"),
    "hostname": Value("{hostname}", "hostname, or host if it is a text"),
    "trace_id": _column("trace_id"),
    "session_id": _column("session_id"),
    "master_type": _column("master_type"),
    "worker_type": _column("worker_type"),
    "worker_id": _column("worker_id"),
    "status": Value("{status}", MEANINGS["status"]),
    "error": _column("error", "text"),
    "duration_ms": _column("duration_ms", "long"),
    # Decimals, because a BIGINT of milliseconds can exceed its range in nanoseconds.
    "duration_ns": Value(
        "(CAST(duration_ms AS DECIMAL(25, 0)) * 1000000)", "duration, nanoseconds", "long"
    ),
    "duration_s": Value(
        "(CAST(duration_ms AS DECIMAL(25, 3)) / 1000)", "duration, seconds", "double"
    ),
    "cost_usd": _column("cost_usd", "double"),
}
"""Name of a value → the value. Names in braces are `COLUMNS`."""

COLUMNS: Mapping[str, str] = {
    "event_time": "event_time",
    "time_unix_ns": "epoch_us(event_time) * 1000",
    "message": "coalesce(json_extract_string(event, '$.message'), json_extract_string(event, '$.msg'))",
    "hostname": (
        "coalesce(json_extract_string(event, '$.hostname'), "
        "CASE json_type(event, '$.host') WHEN 'VARCHAR' THEN json_extract_string(event, '$.host') END)"
    ),
    "status": "status",
}
"""SQL over a frame of the values that a table of PostgreSQL has in another form."""


@dataclass(frozen=True)
class Schema:
    """A row of the table.

    Attributes:
        names: name of a value → its name in the schema.
        separator: text in a name after which the name of a member of an object follows; empty: no
            name stands for objects.
        source: the schema's own page.
    """

    names: Mapping[str, str]
    separator: str
    source: str


SCHEMAS: Mapping[MappingName, Schema] = {
    "none": Schema(
        {
            name: name
            for name in VALUES
            # These are other forms of a column.
            if name
            not in ("time_unix_ns", "severity_number", "severity", "duration_ns", "duration_s")
        },
        separator="",
        source="the columns of a frame, docs/architecture.md",
    ),
    "otel": Schema(
        {
            "time_unix_ns": "time_unix_nano",
            "severity_number": "severity_number",
            "event_level": "severity_text",
            "event_type": "event_name",
            "message": "body",
            "trace_id": "trace_id",
            "source_name": "resource/attributes/service.name",
            "hostname": "resource/attributes/host.name",
            "session_id": "attributes/session.id",
            "error": "attributes/exception.message",
            "event_id": "attributes/obs.event_id",
            "master_type": "attributes/obs.master_type",
            "worker_type": "attributes/obs.worker_type",
            "worker_id": "attributes/obs.worker_id",
            "status": "attributes/obs.status",
            "duration_ms": "attributes/obs.duration_ms",
            "cost_usd": "attributes/obs.cost_usd",
        },
        # The names of attributes have dots of their own.
        separator="/",
        source="https://opentelemetry.io/docs/specs/otel/logs/data-model/",
    ),
    "ecs": Schema(
        {
            "event_time": "@timestamp",
            "message": "message",
            "event_id": "event.id",
            "event_type": "event.action",
            "event_level": "log.level",
            "source_name": "service.name",
            "hostname": "host.name",
            "trace_id": "trace.id",
            "error": "error.message",
            "duration_ns": "event.duration",
            "master_type": "labels.master_type",
            "worker_type": "labels.worker_type",
            "worker_id": "labels.worker_id",
            "session_id": "labels.session_id",
            "status": "labels.status",
            "cost_usd": "obs.cost_usd",
        },
        separator=".",
        source="https://www.elastic.co/docs/reference/ecs",
    ),
    "datadog": Schema(
        {
            "event_time": "timestamp",
            "message": "message",
            "event_level": "status",
            "source_name": "service",
            "hostname": "hostname",
            # Datadog makes its attribute `trace_id` of this.
            "trace_id": "dd.trace_id",
            "session_id": "session.id",
            "event_type": "evt.name",
            "status": "evt.outcome",
            "error": "error.message",
            "duration_ns": "duration",
            "event_id": "obs.event_id",
            "master_type": "obs.master_type",
            "worker_type": "obs.worker_type",
            "worker_id": "obs.worker_id",
            "cost_usd": "obs.cost_usd",
        },
        # Its loggers write names with dots, not objects.
        separator="",
        source="https://docs.datadoghq.com/standard-attributes/?product=log",
    ),
    "splunk_cim": Schema(
        {
            "event_time": "_time",
            "message": "description",
            "event_id": "id",
            "event_type": "signature",
            "severity": "severity",
            "source_name": "app",
            "hostname": "src",
            "trace_id": "transaction_id",
            "session_id": "session_id",
            "status": "status",
            "duration_s": "duration",
            "event_level": "obs.level",
            "error": "obs.error",
            "master_type": "obs.master_type",
            "worker_type": "obs.worker_type",
            "worker_id": "obs.worker_id",
            "cost_usd": "obs.cost_usd",
        },
        # Indexed fields of Splunk are flat.
        separator="",
        source="https://help.splunk.com/en/data-management/common-information-model/6.0/data-models/alerts",
    ),
}
"""Name of a mapping → its names. A new mapping is a row here and a word in `MappingName`."""


def of_frame(sql: str) -> str:
    """SQL of a value, over the columns of a frame."""
    return sql.format_map(COLUMNS)


def path_of(mapping: MappingName, value: str) -> tuple[str, ...]:
    """Names of objects, then of the field, under which a mapping has a value; empty if it has none."""
    schema = SCHEMAS[mapping]
    name = schema.names.get(value, "")
    if schema.separator:
        return tuple(filter(None, name.split(schema.separator)))
    return (name,) if name else ()


def fields_of(
    mapping: MappingName, leave_out: Collection[str] = ()
) -> Iterator[tuple[tuple[str, ...], Value]]:
    """Path and value of each field of a mapping, in the order of its row.

    Args:
        mapping: name of the mapping.
        leave_out: names of values that the destination has in a field of its own.
    """
    for name in SCHEMAS[mapping].names:
        if name not in leave_out:
            yield path_of(mapping, name), VALUES[name]


Tree: TypeAlias = dict[str, Any]
"""Names of members → SQL of their JSON text, or the members of an object."""


def tree_of(mapping: MappingName, leave_out: Collection[str] = ()) -> Tree:
    """The fields of a mapping as a tree of objects; see `fields_of`."""
    tree: Tree = {}
    for path, value in fields_of(mapping, leave_out):
        put(tree, path, value.json)
    return tree


def put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Give a tree a member; its objects are made."""
    *outer, name = path
    for key in outer:
        tree = tree.setdefault(key, {})
    tree[name] = value


def object_sql(tree: Tree) -> str:
    """SQL of a JSON object; a member whose value is NULL, and an object without members, is left out."""
    members = []
    for name, value in tree.items():
        text = value
        if isinstance(value, dict):
            text = f"nullif({object_sql(value)}, '{{}}')"
        key = quote(f'"{name}":')
        members.append(f"{key} || {text}")
    return f"'{{' || concat_ws(',', {', '.join(members)}) || '}}'"


WHOLE = "data"
"""Field with the whole event beside the fields of a mapping."""


def line_sql(mapping: MappingName) -> str:
    """SQL of the text of an event under a mapping: the event itself, or the fields and the event in `WHOLE`."""
    if mapping == "none":
        return "event"
    return object_sql({**tree_of(mapping), WHOLE: "event"})
