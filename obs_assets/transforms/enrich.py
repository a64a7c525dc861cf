"""Adds fields to events: time, host, environment, process, duration, cost estimate and context.

Each value comes from the event, from the configuration, or from the landing process that landing recorded
beside the event. The clock and the host of the run add nothing. So an hour that is enriched again has the
same bytes. A field of the event is never overwritten.

The functions below build SQL, each a small expression; `enrich` puts them together.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Literal

import duckdb
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    JsonValue,
    computed_field,
    model_validator,
)

from obs_assets.config import Block, Json, mapping_or_yaml_file
from obs_assets.events import (
    LINEAGE,
    PROMOTED,
    SOURCE_KEYS,
    Frame,
    append_fields,
    one_of,
    quote,
    with_columns,
)
from obs_assets.transforms import cached_tokens
from obs_assets.transforms.functions import RESERVED, DottedPath, digest, enrich_by
from obs_assets.transforms.lookup import FieldName, GeoIp, Lookup, register

Enrichment = Literal[
    "timestamp", "hostname", "environment", "process", "performance", "context"
]

ENRICHMENTS: tuple[Enrichment, ...] = (
    "timestamp",
    "hostname",
    "environment",
    "process",
    "performance",
    "context",
)
"""All enrichments, in the order in which they add their fields, whatever the order in the configuration."""


Usd = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=6)]
"""An amount in USD, with at most six decimals."""

ANY_MODEL = "*"
"""Key of a price table: the price of every model that the table does not name."""

UNKNOWN_MODEL = "unknown"
"""The model of an event that names no model."""


class Price(BaseModel, frozen=True, extra="forbid"):
    """Prices of a model's tokens.

    Attributes:
        input_usd_per_million: price of a million input tokens, up to six decimals.
        output_usd_per_million: price of a million output tokens, up to six decimals.
        cache_read_usd_per_million: price of a million input tokens that the provider read from its
            cache. Null: an event with such tokens gets no estimate and a flag.
        cache_write_usd_per_million: the same for tokens that it wrote to its cache.
    """

    input_usd_per_million: Usd = Field(examples=[3.0], json_schema_extra={"unit": "USD"})
    output_usd_per_million: Usd = Field(examples=[15.0], json_schema_extra={"unit": "USD"})
    cache_read_usd_per_million: Usd | None = Field(
        None, examples=[0.3], json_schema_extra={"unit": "USD"}
    )
    cache_write_usd_per_million: Usd | None = Field(
        None, examples=[3.75], json_schema_extra={"unit": "USD"}
    )


DEFAULT_PRICE = Price(
    input_usd_per_million=Decimal(3),
    output_usd_per_million=Decimal(15),
    cache_read_usd_per_million=Decimal("0.3"),
    cache_write_usd_per_million=Decimal("3.75"),
)
"""The price of a model that the configuration does not name."""


class EnrichConfig(Block, frozen=True):
    """Which fields are added to events.

    Attributes:
        enrichments: groups of fields that are added; ``all`` is every group. docs/transforms.md
            lists the fields of each group.
        environment: value of the field ``environment`` for events that name no environment; null
            adds nothing.
        collector_fields: where facts of the machine go that landed the event (its host name,
            platform, architecture, Python version and process id). ``nested``: into
            ``_enrichment.collector``; ``flat``: into fields of the event, as if they were its own.
        prices: model → price of its tokens, for cost estimates; ``*`` is every other model.
            Without ``*`` a model that is not named gets no estimate. Or the path of a YAML file
            with such a mapping.
        static_fields: field → value, for events without that field; a value is any JSON.
        lookups: fields from tables of yours, found by a value of the event.
        geoip: fields from MaxMind databases, found by an IP address of the event.
        function: dotted path of a function of yours, ``pandas.DataFrame -> pandas.DataFrame``,
            which runs last.
    """

    enrichments: tuple[Enrichment | Literal["all"], ...] = (
        "timestamp",
        "hostname",
        "environment",
        "process",
        "performance",
    )
    environment: str | None = Field(None, examples=["production"])
    collector_fields: Literal["nested", "flat"] = "nested"
    prices: Annotated[
        dict[str, Price],
        BeforeValidator(mapping_or_yaml_file, json_schema_input_type=dict[str, Price] | str),
    ] = Field(default_factory=lambda: {ANY_MODEL: DEFAULT_PRICE}, min_length=1)

    static_fields: dict[FieldName, Json] = Field(
        default_factory=dict, examples=[{"region": "eu-central-1"}]
    )
    lookups: tuple[Lookup, ...] = Field(
        (), examples=[[{"table": "services.csv", "key": "service.name"}]]
    )
    geoip: tuple[GeoIp, ...] = Field(
        (), examples=[[{"database": "GeoLite2-City.mmdb", "key": "client.ip"}]]
    )
    function: DottedPath | None = Field(None, examples=["my_package.enrichments.add_team"])

    @model_validator(mode="after")
    def _fields_are_given_once(self) -> "EnrichConfig":
        given: list[str] = []
        for enrichment in self.applied:
            given += FIELDS[enrichment]
        if self.collector_fields == "flat":
            given += _facts(self)
        for name in _own_names(self):
            if name in RESERVED:
                raise ValueError(
                    f"the field {name} is written by the stages: choose another name"
                )
            if name in given:
                raise ValueError(
                    f"the field {name} is added twice: once by another part of this block"
                )
            given.append(name)
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def function_digest(self) -> str | None:
        """Hash of the function's source: changed source is a changed configuration."""
        return digest(self.function)

    @property
    def sources(self) -> tuple[Lookup | GeoIp, ...]:
        """The tables and databases in which values of the event are looked up."""
        return (*self.lookups, *self.geoip)

    @property
    def applied(self) -> tuple[Enrichment, ...]:
        """The selected enrichments, in the order of `ENRICHMENTS`."""
        # The order of the configuration does not matter: equal sets give equal bytes.
        if "all" in self.enrichments:
            return ENRICHMENTS
        return tuple(name for name in ENRICHMENTS if name in self.enrichments)


def enrich(connection: duckdb.DuckDBPyConnection, frame: Frame, config: EnrichConfig) -> Frame:
    """Add fields to events.

    ===========  ==================================================================================================
    timestamp    ``timestamp``: the event time as ISO 8601 with ``Z``, to the millisecond, or microsecond if it has any
    hostname     ``hostname``: the event's own host, under whichever of `OWN_NAMES` it stands
    environment  ``environment``: the event's own, else that of the configuration
    process      ``process_id``: the event's own
    performance  ``duration_ms`` from ``started_at`` to ``completed_at``: whole milliseconds, zero included;
                 ``cost_estimate`` of the tokens counted in the objects ``tokens_used`` or ``token_usage``, at the
                 model's price, unless the event names its cost: ``cost_usd`` or ``cost``
    context      ``_context``: of a master if ``master_type`` is given, else of a worker if ``worker_type`` is;
                 with ``trace_id``, ``session_id`` and ``parent_span_id`` where given
    configured   ``static_fields``, then the ``lookups`` and ``geoip`` of values that the event came with
    always       ``_enrichment``: name of the enricher, configured enrichments, and in ``collector`` the facts of
                 the landing process that `COLLECTED` lists for them. ``collector_fields: flat`` puts these facts
                 into fields of the event instead, where the event lacks the field
    ===========  ==================================================================================================

    Last, the ``function`` gets the enriched events.

    A key of the event is left alone, even if its value is null. A duration below zero is not written: instead,
    ``_enrichment.flags`` gets ``negative_duration``. A token count is a whole number of at most 15 digits. A
    missing count, or null, is 0; if both counts are missing, or a count is anything else, there is no estimate.
    Amounts are exact: tokens × price ÷ 1,000,000. Tokens that were read from or written to a provider's cache
    have their own prices (`obs_assets.transforms.cached_tokens`). Without such a price, or if their count is
    unclear, there is no estimate, and ``_enrichment.flags`` gets ``cached_tokens_without_price`` or
    ``cached_tokens_unclear``.

    No field depends on the run: there is no ``enriched_at``, and no memory or CPU of the enriching process.

    Args:
        connection: the frame's own.
        frame: lineage, promoted columns and ``event``; from landing ``event_file`` and ``collector`` (VARCHAR, a JSON
            object with hostname, platform, arch, process_id and python_version; a missing fact is not added).
        config: a disabled configuration leaves ``event`` unchanged.

    Returns:
        Lineage, promoted columns and ``event``; same rows, same order.
    """
    if not config.enabled:
        # Columns that only landing needs end here, as they do after an enrichment.
        return frame.project(", ".join([*LINEAGE, *PROMOTED, "event"]))
    keys = _EVENT_KEYS
    if "context" not in config.applied:
        keys = _EVENT_KEYS[: -len(_CONTEXT_KEYS)]
    paths = (*map(_path, keys), *_own_paths(config))
    texts = _collector_texts(frame, config)
    facts = _extract("collector", map(_path, _COLLECTOR_KEYS))
    extracted = _derive(
        frame,
        found=_extract("event", paths),
        collected=f"CASE WHEN {one_of('collector', texts)} THEN NULL ELSE {facts} END",
    )
    # A second pass, only over events that have one of these names: to look for all their paths in each event
    # would take a third of the time of the first.
    has_own = f"coalesce({', '.join(map(_there, _OWN_ROOTS))}) IS NOT NULL"
    own = _extract("event", _OWN_PATHS)
    measured = _derive(extracted, own=f"CASE WHEN {has_own} THEN {own} END")
    if "performance" in config.applied:
        measured = _with_performance(measured, config)
    looked_up, own_fields = _with_own(connection, measured, config, paths)
    fields: list[str] = []
    for enrichment in config.applied:
        fields += _FIELDS[enrichment](config)
    fields += own_fields
    fields.append(_unless_there("_enrichment", _enrichment(config, texts)))
    described = _derive(looked_up, fields=_concat(*fields))
    enriched = _with_longer_event(described, config)
    if config.function:
        return enrich_by(connection, enriched, config.function)
    return enriched


def _with_longer_event(described: Frame, config: EnrichConfig) -> Frame:
    """Append the text ``fields`` to the event, and update the promoted columns."""
    event = f"{append_fields('event', 'fields')} AS event"
    if SOURCE_KEYS.intersection(_own_names(config)):
        return with_columns(described.project(", ".join([*LINEAGE, event])))
    changed = _columns(config)
    columns = [f"{changed.get(name, name)} AS {name}" for name in PROMOTED]
    return described.project(", ".join([*LINEAGE, *columns, event]))


def _columns(config: EnrichConfig) -> dict[str, str]:
    """Promoted column → its SQL, for the columns that the enrichments change.

    To parse the longer event again would cost as much as the whole stage.
    """
    if "performance" not in config.applied:
        return {}
    measured = f"{_there('duration_ms')} IS NULL AND measured_ms >= 0"
    total = "try_cast(input_cost + output_cost AS DECIMAL(28, 12))"
    return {
        "duration_ms": f"CASE WHEN {measured} THEN measured_ms ELSE duration_ms END",
        "cost_usd": f"CASE WHEN {_estimated()} THEN {total} ELSE cost_usd END",
    }


def _derive(frame: Frame, **columns: str) -> Frame:
    """The frame with further columns: name=SQL."""
    added = [f"{expression} AS {name}" for name, expression in columns.items()]
    return frame.project(", ".join(["*", *added]))


# ---- values of the event and of its collector

_CONTEXT_KEYS = (
    *("_context", "master_type", "worker_type", "worker_id"),
    *("trace_id", "session_id", "parent_span_id"),
)
"""Keys that only the context needs. They are the last of `_EVENT_KEYS`, so that they can be left out."""

OWN_NAMES: dict[str, tuple[str, ...]] = {
    "hostname": (
        *('$."host.name"', "$.host.name", "$.host.hostname", "$.host", "$._HOSTNAME"),
        *('$.resource.attributes."host.name"', '$.resource."host.name"'),
    ),
    "environment": (
        *(
            "$.env",
            '$."service.environment"',
            "$.service.environment",
            '$."deployment.environment"',
        ),
        *(
            '$.resource.attributes."deployment.environment.name"',
            '$.resource.attributes."deployment.environment"',
        ),
    ),
    "process_id": (
        *("$.pid", '$."process.pid"', "$.process.pid", "$._PID"),
        '$.resource.attributes."process.pid"',
    ),
}
"""Field → JSON paths at which other programs write it: ECS, OpenTelemetry, journald, pino. The first path with a text
or a number counts."""

_OWN_PATHS = tuple(itertools.chain.from_iterable(OWN_NAMES.values()))
"""These paths, in the order of the SQL list ``own``, which is NULL for an event without any of their first names."""


def _root(path: str) -> str:
    """The JSON path of the first name: ``$.host.name`` → ``$.host``, ``$."host.name"`` as it is."""
    return _FIRST_NAME.match(path)[0]  # type: ignore[index]


_FIRST_NAME = re.compile(r'\$\.("[^"]*"|[^.]+)')

_OWN_ROOTS = tuple(dict.fromkeys(map(_root, _OWN_PATHS)))

COLLECTED: dict["Enrichment", tuple[str, ...]] = {
    "hostname": ("hostname", "platform", "arch"),
    "environment": ("python_version",),
    "process": ("process_id",),
}
"""Enrichment → facts of the landing process."""

_USAGES = ("tokens_used", "token_usage")
"""Objects that count tokens; if an event has both, the first counts."""

_EVENT_KEYS = (
    "timestamp",
    "hostname",
    "platform",
    "arch",
    "environment",
    "python_version",
    "process_id",
    "duration_ms",
    "cost_estimate",
    "cost_usd",
    "cost",
    "_enrichment",
    "started_at",
    "completed_at",
    "model",
    *_USAGES,
    "tokens_used.input_tokens",
    "tokens_used.output_tokens",
    "token_usage.input_tokens",
    "token_usage.output_tokens",
    *_OWN_ROOTS,
    *_CONTEXT_KEYS,
)
"""Keys and paths of the event that are read, in the order of the SQL list ``found``."""

_COLLECTOR_KEYS = tuple(itertools.chain.from_iterable(COLLECTED.values()))
"""Keys of the collector that are read, in the order of the SQL list ``collected``."""


def _path(key: str) -> str:
    """The JSON path of a key with dots between names; a JSON path stays as it is."""
    if key.startswith("$"):
        return key
    return "$" + "".join(f'."{name}"' for name in key.split("."))


def _extract(document: str, paths: Iterable[str]) -> str:
    """SQL list of JSON texts, in a single pass over the document.

    A missing value is NULL; JSON's null is the text ``null``.
    """
    return f"json_extract({document}, [{', '.join(map(quote, paths))}])"


def _there(key: str) -> str:
    """The JSON text of a key of the event, NULL where the key is missing."""
    # Lists of SQL begin at 1.
    return f"found[{_EVENT_KEYS.index(key) + 1}]"


def _not_null(key: str) -> str:
    """The JSON text of a key of the event, NULL where the key is missing or null."""
    return f"nullif({_there(key)}, 'null')"


def _given(key: str) -> str:
    """The JSON text of a key of the event, NULL where it is missing, null or an empty string."""
    return f"""nullif({_not_null(key)}, '""')"""


def _own(field: str) -> str:
    """An event's own value of a field, under any of `OWN_NAMES`."""
    values = ", ".join(map(_text_or_number, OWN_NAMES[field]))
    return f"CASE WHEN own IS NOT NULL THEN coalesce({values}) END"


def _text_or_number(path: str) -> str:
    value = f"own[{_OWN_PATHS.index(path) + 1}]"
    return f"""CASE WHEN left({value}, 1) IN ('"', '-') AND {value} <> '""' OR left({value}, 1) BETWEEN '0' AND '9'
        THEN {value} END"""


def _collected(key: str) -> str:
    return f"nullif(collected[{_COLLECTOR_KEYS.index(key) + 1}], 'null')"


# ---- fields: text ``,"key":value``, NULL where there is no field to add


def _field(key: str, value: str) -> str:
    """The field, NULL where its value is NULL."""
    return f"{quote(f',{json.dumps(key)}:')} || {value}"


def _unless_there(key: str, value: str) -> str:
    """The field, NULL where the event has the key."""
    return f"CASE WHEN {_there(key)} IS NULL THEN {_field(key, value)} END"


def _concat(*texts: str) -> str:
    """Texts joined without a separator, NULLs left out."""
    return f"concat({', '.join(texts)})"


def _string(text: str) -> str:
    """A JSON string, as an SQL literal."""
    return quote(json.dumps(text, ensure_ascii=False))


def _iso_time() -> str:
    # Two calls, because DuckDB requires a constant format.
    utc = "event_time AT TIME ZONE 'UTC'"
    milliseconds = f"""strftime({utc}, '"%Y-%m-%dT%H:%M:%S.%gZ"')"""
    microseconds = f"""strftime({utc}, '"%Y-%m-%dT%H:%M:%S.%fZ"')"""
    is_whole = f"microsecond({utc}) % 1000 = 0"
    return f"CASE WHEN {is_whole} THEN {milliseconds} ELSE {microseconds} END"


def _context() -> str:
    """The JSON object ``_context``, NULL for an event with neither role nor identities."""
    master = _concat(_field("master_type", _given("master_type")), quote(',"is_master":true'))
    worker = _concat(
        _field("worker_type", _given("worker_type")),
        _field("worker_id", _not_null("worker_id")),
        quote(',"is_worker":true'),
    )
    role = f"""CASE
        WHEN {_given("master_type")} IS NOT NULL THEN {master}
        WHEN {_given("worker_type")} IS NOT NULL THEN {worker} END"""
    ids = [_field(key, _given(key)) for key in ("trace_id", "session_id", "parent_span_id")]
    # `substr` cuts the first comma off; it is faster than `[2:]`.
    return f"'{{' || substr(nullif({_concat(role, *ids)}, ''), 2) || '}}'"


def _estimated() -> str:
    """Whether an event gets an estimate: it counts tokens and has no cost of its own."""
    own = " AND ".join(f"{_not_null(key)} IS NULL" for key in ("cost_usd", "cost"))
    return f"input_cost IS NOT NULL AND {_there('cost_estimate')} IS NULL AND {own}"


def _model() -> str:
    """The event's model as a JSON string."""
    given = _given("model")
    return f"""CASE WHEN {given} LIKE '"%' THEN {given} ELSE {_string(UNKNOWN_MODEL)} END"""


def _cost_estimate() -> str:
    amounts = {
        "input_cost_usd": _plain("input_cost"),
        "output_cost_usd": _plain("output_cost"),
        "total_cost_usd": _plain("input_cost + output_cost"),
    }
    read, written = "coalesce(cache_read, 0)", "coalesce(cache_write, 0)"
    cached = {"cache_read": read, "cache_write": written}
    others = {"output": "output_tokens", "total": "input_tokens + output_tokens"}
    with_cached = _object({"input": "input_tokens", **cached, **others})
    without = _object({"input": "input_tokens", **others})
    tokens = f"CASE WHEN {read} + {written} > 0 THEN {with_cached} ELSE {without} END"
    return _object({**amounts, "model": _model(), "tokens": tokens})


def _object(values: dict[str, str]) -> str:
    """A JSON object, NULL where any of its values is NULL."""
    pairs = [f"{quote(json.dumps(key) + ':')} || ({value})" for key, value in values.items()]
    members = " || ',' || ".join(pairs)
    return f"('{{' || {members} || '}}')"


def _enrichment(config: EnrichConfig, texts: Mapping[str, str]) -> str:
    about = json.dumps(
        {"enriched_by": config.name or "enricher", "enrichments_applied": config.applied},
        ensure_ascii=False,
        separators=(",", ":"),
    )
    flags = "''"
    if "performance" in config.applied:
        flags = _flags()
    return _concat(quote(about.removesuffix("}")), flags, _collector(config, texts), "'}'")


def _flags() -> str:
    """The text ``,"flags":[…]``, empty for an event without a flag."""
    names_no_cost = " AND ".join(
        f"{key} IS NULL"
        for key in (_there("cost_estimate"), _not_null("cost_usd"), _not_null("cost"))
    )
    conditions = {
        "negative_duration": f"{_there('duration_ms')} IS NULL AND measured_ms < 0",
        "cached_tokens_unclear": f"cached_unclear AND {names_no_cost}",
        "cached_tokens_without_price": f"cached_unpriced AND {names_no_cost}",
    }
    found = ", ".join(
        f"CASE WHEN {condition} THEN {quote(json.dumps(name))} END"
        for name, condition in conditions.items()
    )
    flags = f"""coalesce(',"flags":[' || nullif(concat_ws(',', {found}), '') || ']', '')"""
    # Nearly no event has a flag: the others save the conditions above.
    is_possible = "measured_ms < 0 OR cached_unclear OR cached_unpriced"
    return f"CASE WHEN {is_possible} THEN {flags} ELSE '' END"


def _collector(config: EnrichConfig, texts: Mapping[str, str]) -> str:
    """The text ``,"collector":{…}``, empty where landing has recorded none of the facts.

    ``texts`` are known texts, see `_collector_texts`; every other text is made from ``collected``.
    """
    facts = _facts(config)
    if config.collector_fields != "nested" or not facts:
        return "''"
    members = _concat(*[_field(key, _collected(key)) for key in facts])
    made = f"""coalesce(',"collector":{{' || substr(nullif({members}, ''), 2) || '}}', '')"""
    if not texts:
        return made
    known = " ".join(
        f"WHEN {quote(collector)} THEN {quote(text)}" for collector, text in texts.items()
    )
    return f"CASE collector {known} ELSE {made} END"


KNOWN_COLLECTORS = 8
"""Landing processes whose text is made once. The events of an hour are of few processes."""


def _collector_texts(frame: Frame, config: EnrichConfig) -> dict[str, str]:
    """The column ``collector`` → the text of `_collector`, for some collectors of the frame.

    All events of a landing process have the same facts: to make their text again for each event would take
    a tenth of the time of the stage.
    """
    if config.collector_fields != "nested":
        return {}
    # An event without a collector gets no text.
    some = frame.filter("collector IS NOT NULL").project("collector").distinct()
    facts = _extract("collector", map(_path, _COLLECTOR_KEYS))
    extracted = _derive(some.limit(KNOWN_COLLECTORS), collected=facts)
    return dict(extracted.project(f"collector, {_collector(config, {})}").fetchall())


def _facts(config: EnrichConfig) -> list[str]:
    """Facts of the landing process that belong to the selected enrichments."""
    facts: list[str] = []
    for enrichment in config.applied:
        facts += COLLECTED.get(enrichment, ())
    return facts


def _flat(config: EnrichConfig, *keys: str) -> list[str]:
    """Facts of the landing process as fields of the event, for ``collector_fields: flat``."""
    if config.collector_fields != "flat":
        return []
    return [_unless_there(key, _collected(key)) for key in keys]


def _own_or_collected(config: EnrichConfig, field: str) -> str:
    """An event's own value; for ``collector_fields: flat``, else that of the landing process."""
    own = _own(field)
    if config.collector_fields != "flat":
        return own
    return f"coalesce({own}, {_collected(field)})"


def _hostname(config: EnrichConfig) -> list[str]:
    host = _own_or_collected(config, "hostname")
    return [_unless_there("hostname", host), *_flat(config, "platform", "arch")]


def _environment(config: EnrichConfig) -> list[str]:
    environment = _own("environment")
    if config.environment is not None:
        environment = f"coalesce({environment}, {_string(config.environment)})"
    return [_unless_there("environment", environment), *_flat(config, "python_version")]


def _process(config: EnrichConfig) -> list[str]:
    return [_unless_there("process_id", _own_or_collected(config, "process_id"))]


_FIELDS: dict[Enrichment, Callable[[EnrichConfig], list[str]]] = {
    "timestamp": lambda _: [_unless_there("timestamp", _iso_time())],
    "hostname": _hostname,
    "environment": _environment,
    "process": _process,
    "performance": lambda _: [
        _unless_there("duration_ms", "CASE WHEN measured_ms >= 0 THEN measured_ms END"),
        f"CASE WHEN {_estimated()} THEN {_field('cost_estimate', _cost_estimate())} END",
    ],
    "context": lambda _: [_unless_there("_context", _context())],
}
"""Enrichment → SQL for each of its fields."""


FIELDS: dict[Enrichment, tuple[str, ...]] = {
    "timestamp": ("timestamp",),
    "hostname": ("hostname",),
    "environment": ("environment",),
    "process": ("process_id",),
    "performance": ("duration_ms", "cost_estimate"),
    "context": ("_context",),
}
"""Enrichment → names of the fields that it adds, without the facts of the landing process."""


# ---- fields that the user configures


def _own_names(config: EnrichConfig) -> list[str]:
    """Names of the fields to add."""
    names = [*config.static_fields]
    for source in config.sources:
        names += source.names
    return names


def _own_paths(config: EnrichConfig) -> tuple[str, ...]:
    """JSON paths of the fields to add, and of the values to look up."""
    keys = [source.key for source in config.sources]
    paths = map(_path, [*_own_names(config), *keys])
    return tuple(dict.fromkeys(paths))


def _with_own(
    connection: duckdb.DuckDBPyConnection,
    frame: Frame,
    config: EnrichConfig,
    paths: tuple[str, ...],
) -> tuple[Frame, list[str]]:
    """The frame with a column ``looked_up_N`` for each source, and SQL for each field to add.

    ``paths`` are the JSON paths of the SQL list ``found``.
    """

    def found(key: str) -> str:
        return f"found[{paths.index(_path(key)) + 1}]"

    def unless_found(name: str, value: str) -> str:
        return f"CASE WHEN {found(name)} IS NULL THEN {_field(name, value)} END"

    fields = [
        unless_found(name, quote(_json(value))) for name, value in config.static_fields.items()
    ]
    columns: dict[str, str] = {}
    for number, source in enumerate(config.sources):
        column = f"looked_up_{number}"
        value = f"json_extract_string({found(source.key)}, '$')"
        columns[column] = f"{register(connection, source)}({value})"
        for position, name in enumerate(source.names, start=1):
            otherwise = "NULL"
            if name in source.default:
                otherwise = quote(_json(source.default[name]))
            cell = f"coalesce({column}[{position}], {otherwise})"
            fields.append(unless_found(name, cell))
    if not columns:
        return frame, fields
    return _derive(frame, **columns), fields


def _json(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# ---- performance


def _with_performance(frame: Frame, config: EnrichConfig) -> Frame:
    """Add ``measured_ms``; for an event with token counts, also the input and output tokens and their costs.

    This takes several steps, because a column cannot use another column of the same step.
    """
    given = _derive(
        frame,
        measured_ms=f"{_epoch_ms('completed_at')} - {_epoch_ms('started_at')}",
        input_given=_tokens_given("input_tokens"),
        output_given=_tokens_given("output_tokens"),
    )
    counted = _derive(
        given,
        input_count=_token_count("input_given"),
        output_count=_token_count("output_given"),
        cached_counts=cached_tokens.counts_sql(
            [_there(usage) for usage in _USAGES], _token_count
        ),
    )
    counted = _derive(counted, **cached_tokens.columns())
    all_counts = (
        "(input_given IS NULL OR input_count IS NOT NULL) "
        "AND (output_given IS NULL OR output_count IS NOT NULL)"
    )
    usable = f"{all_counts} AND coalesce(input_count, output_count) IS NOT NULL"
    tokens = _derive(
        counted,
        is_usable=usable,
        cached_unclear=f"({usable}) AND {cached_tokens.is_unclear('input_count')}",
        cache_read="coalesce(cached_inside_read, cached_beside_read)",
        cache_write="coalesce(cached_inside_write, cached_beside_write)",
        beside="coalesce(cached_beside_read, 0) + coalesce(cached_beside_write, 0)",
    )
    tokens = _derive(
        tokens,
        input_tokens="CASE WHEN is_usable THEN coalesce(input_count, 0) + beside END",
        output_tokens="CASE WHEN is_usable THEN coalesce(output_count, 0) END",
        input_price=_price(config, lambda price: price.input_usd_per_million),
        output_price=_price(config, lambda price: price.output_usd_per_million),
        read_price=_price(config, lambda price: price.cache_read_usd_per_million),
        write_price=_price(config, lambda price: price.cache_write_usd_per_million),
    )
    plain = "input_tokens - coalesce(cache_read, 0) - coalesce(cache_write, 0)"
    priced = _derive(
        tokens,
        plain_tokens=f"try_cast({plain} AS DECIMAL(15, 0))",
        cached_unpriced="""is_usable AND NOT cached_unclear AND input_price IS NOT NULL
            AND (cache_read IS NOT NULL AND read_price IS NULL
                OR cache_write IS NOT NULL AND write_price IS NULL)""",
    )
    cached_cost = " + ".join(
        f"coalesce(cache_{kind} * {kind}_price, 0)" for kind in cached_tokens.KINDS
    )
    return _derive(
        priced,
        input_cost=f"""CASE WHEN NOT cached_unclear AND NOT cached_unpriced
            THEN try_cast(plain_tokens * input_price + {cached_cost} AS DECIMAL(34, 12)) END""",
        output_cost="output_tokens * output_price",
    )


def _tokens_given(name: str) -> str:
    """The JSON text of a token count, under either of its two keys."""
    used, usage = _not_null(f"tokens_used.{name}"), _not_null(f"token_usage.{name}")
    return f"coalesce({used}, {usage})"


def _price(config: EnrichConfig, of: Callable[[Price], Decimal | None]) -> str:
    """USD for one token of the event's model, NULL where the table has no price for it."""
    named = {
        model: _usd_per_token(of(price))
        for model, price in config.prices.items()
        if model != ANY_MODEL
    }
    other = _usd_per_token(None)
    if ANY_MODEL in config.prices:
        other = _usd_per_token(of(config.prices[ANY_MODEL]))
    if not named:
        return other
    models = ", ".join(map(quote, named))
    model = f"json_extract_string({_model()}, '$')"
    position = f"list_position([{models}], {model})"
    prices = f"[{', '.join(named.values())}]"
    return f"CASE WHEN {position} > 0 THEN {prices}[{position}] ELSE {other} END"


def _epoch_ms(key: str) -> str:
    """Milliseconds since 1970, floored; NULL where the value of the key is not a time.

    Landing reads times in the same way: ISO 8601, in UTC if there is no offset. The magnitude of a number
    decides between seconds, milliseconds, microseconds and nanoseconds.
    """
    text = _unquoted(_there(key))
    number = f"{text}::DECIMAL(29, 9)"
    moment = f"try_cast({text} AS TIMESTAMPTZ)"
    # `epoch_ms` would round.
    return f"""CASE
        WHEN regexp_matches({text}, '^\\d{{4}}-\\d\\d-\\d\\d') THEN epoch_us({moment}) // 1000
        WHEN regexp_full_match({text}, '\\d{{1,19}}(\\.\\d{{1,9}})?') THEN CASE
            WHEN {number} < 100000000000 THEN floor({number} * 1000)::BIGINT
            WHEN {number} < 100000000000000 THEN floor({number})::BIGINT
            WHEN {number} < 100000000000000000 THEN floor({number})::BIGINT // 1000
            ELSE (floor({number})::HUGEINT // 1000000)::BIGINT END
        END"""


def _token_count(value: str) -> str:
    """A count as a DECIMAL, NULL where the JSON text is not a whole number of at most 15 digits."""
    text = _unquoted(value)
    is_count = f"regexp_full_match({text}, '\\d{{1,15}}(\\.0+)?')"
    return f"CASE WHEN {is_count} THEN {text}::DECIMAL(15, 0) END"


def _unquoted(value: str) -> str:
    """A JSON number or string without its quotes; only for texts without escapes."""
    # `replace` takes a third of the time of `trim` with a character of its own.
    return f"""replace({value}, '"', '')"""


def _usd_per_token(usd_per_million: Decimal | None) -> str:
    if usd_per_million is None:
        return "NULL::DECIMAL(19, 12)"
    # 19 digits: if both factors had at most 18 digits, DuckDB would limit the product to 18.
    return f"'{usd_per_million.scaleb(-6):f}'::DECIMAL(19, 12)"


def _plain(amount: str) -> str:
    """A decimal amount in plain notation, without the zeros at its end."""
    return f"rtrim(rtrim(({amount})::VARCHAR, '0'), '.')"
