"""Sampling: drops events by rate, and gives each kept event a weight. `obs_assets.transforms.filter` drops by rule.

The draw is a hash of the event's trace. So a trace is kept or dropped whole, and a rebuild draws the same
events. An event that is kept at a rate is kept at every higher rate.

Every event stays in the frame: the column ``dropped_by`` says whether it is dropped, so that a stage can
count before it writes.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from obs_assets.config import Block
from obs_assets.events import LINEAGE, PROMOTED, Frame, append_fields, one_of, quote
from obs_assets.severities import ERROR_STATUSES, GRAVE, SUCCESSES

SUCCESS_STATUSES = ("success", "completed")
"""Statuses, in lower case, of events that count as successes."""

Rate = Annotated[float, Field(ge=0, le=1, json_schema_extra={"unit": "share, 0 to 1"})]
"""The share of events to keep: 1 keeps all, 0 none."""

Key = Literal["trace_id", "session_id", "event_id", "worker_id", "row_uid"]
"""Columns whose value can decide the draw."""


def _as_column(key: Any) -> Any:
    """The column of a key; older pipeline files write ``id`` for ``event_id``."""
    if key == "id":
        return "event_id"
    return key


class SampleConfig(Block, frozen=True):
    """Which share of the events is kept. 1 keeps all events, 0 none.

    Attributes:
        error_rate: share of errors to keep; docs/transforms.md says which events are errors.
        success_rate: share of successes to keep that have no rate of their type.
        default_rate: share of all other events to keep.
        type_rates: event type → share to keep, for events that are no errors; ``unknown`` is for
            events without a type.
        strategy: ``deterministic``: one draw for all events of a trace. ``random``: a draw for
            each event, by its row_uid. ``adaptive``: keeps exactly ``adaptive_target`` events of
            each type instead of ``success_rate`` and ``default_rate``. ``tail``: as
            ``deterministic``, and keeps every event of a trace that has an error or a slow event
            in the hour. A rebuild draws the same events.
        adaptive_target: number of events of each type and hour that ``strategy: adaptive`` keeps;
            errors, and types with a rate, are not counted.
        tail_duration_ms: ``strategy: tail`` also keeps traces with an event that took longer; null
            looks at errors alone.
        min_per_type: smallest number of events that are kept of each type and hour (or all, if
            there are fewer); errors are not counted.
        deterministic_key: column whose value decides the draw. Default: trace_id, else session_id,
            else row_uid. ``strategy: random`` ignores it.
    """

    error_rate: Rate = 1.0
    success_rate: Rate = 0.1
    default_rate: Rate = 0.1
    type_rates: dict[str, Rate] = Field(default_factory=dict, examples=[{"llm_call": 1.0}])
    strategy: Literal["deterministic", "random", "adaptive", "tail"] = "deterministic"
    adaptive_target: int = Field(1000, ge=1, le=100_000, json_schema_extra={"unit": "events"})
    tail_duration_ms: int | None = Field(None, ge=0, examples=[60_000])
    min_per_type: int = Field(0, ge=0, le=100_000, json_schema_extra={"unit": "events"})
    deterministic_key: Annotated[Key, BeforeValidator(_as_column)] | None = Field(
        None, examples=["session_id"]
    )

    @property
    def is_by_event(self) -> bool:
        """Whether each event is decided by itself, and not together with the other events of its hour."""
        return self.strategy in ("deterministic", "random") and not self.min_per_type


@dataclass(frozen=True)
class _Stratum:
    """Events that share a rate: the condition holds for them, and no condition of an earlier stratum does.

    The methods return SQL.

    Attributes:
        name: name of the stratum, for example ``success``.
        condition: SQL.
        rate: share of the events to keep, 0 to 1.
    """

    name: str
    condition: str
    rate: float

    def dropped_by(self, key: str) -> str:
        """The reason of a dropped event, NULL for a kept event; ``key`` is SQL for the key of the draw."""
        reason = quote(f"sampled_out:{self.name}")
        return f"CASE WHEN {self._keeps(key)} THEN NULL ELSE {reason} END"

    def _keeps(self, key: str) -> str:
        if self.rate in (0, 1):
            return str(self.rate == 1)
        # md5 ÷ 2¹²⁸ < rate. Hexadecimal texts of the same length compare like their numbers.
        bound = math.ceil(self.rate * 2**128)
        return f"md5({key}) < '{bound:032x}'"

    def weight(self) -> str:
        """Number of events for which a kept event stands."""
        if not self.rate:
            return "NULL"
        return f"'{1 / self.rate!r}'::DOUBLE"

    def note(self, strategy: str) -> str:
        """The field ``_sampling`` of a kept event, with its comma in front."""
        if not self.rate:
            return "NULL"
        return quote(_note(self.rate, strategy, 1 / self.rate))


def _note(rate: float, strategy: str, weight: float) -> str:
    about = {"rate": _number(rate), "strategy": strategy, "weight": _number(weight)}
    return ',"_sampling":' + json.dumps(about, separators=(",", ":"))


def _number(value: float) -> float:
    """A number that JSON writes without a needless fraction: 1 instead of 1.0."""
    if value.is_integer():
        return int(value)
    return value


def sample(frame: Frame, config: SampleConfig | None) -> Frame:
    """Decide for every event whether its rate drops it, and give each kept event its weight.

    The first of these strata decides:

    ===============  =====================================================================================
    ``tail``         with the strategy ``tail``: the key has an error or a slow event in the hour
    ``error``        ``error`` is given; or the status is error or failed; or the level is one of
                     `severities.GRAVE`; or the type contains error or fail
    ``type:<type>``  ``type_rates`` names the type
    ``success``      the status is success or completed, or the level info or success
    ``default``      all others
    ===============  =====================================================================================

    Weights are unbiased. They are 1 ÷ rate, or n ÷ m if exactly m of n events of a type are kept. Then m
    follows from n alone, never from the draw.

    The draw is by trace. A status and a type count in any case of letters, but ``type_rates`` must match
    exactly.

    Args:
        frame: lineage, promoted columns and ``event``; events that have a ``dropped_by`` keep it.
        config: None, or a disabled configuration, keeps every event unchanged, with the weight 1.

    Returns:
        Lineage, promoted and other columns, ``weight`` (DOUBLE; NULL: dropped), ``dropped_by`` (VARCHAR,
        ``sampled_out:<stratum>``; NULL: kept), ``event``; same rows, same order. The text of a kept event gets
        ``_sampling`` with rate, strategy and weight; it replaces a field ``_sampling`` of the event.
    """
    given = frame
    if "dropped_by" not in frame.columns:
        given = frame.project("*, NULL::VARCHAR AS dropped_by")
    if config is None or not config.enabled:
        return _ordered(given, weight="1.0::DOUBLE", event="event")
    strata = _strata(config)
    key = _key(config)
    placed = _with_tail(given, config, key).project(f"*, {_number_of(strata)} AS _stratum")
    decision = _by_rate(strata, config, key)
    exact = _exact_types(placed, strata, config)
    if exact:
        placed = placed.project(f"*, {_number_of_type(exact, strata, config)} AS _exact")
        decision = _exactly(exact, strata, config, decision)
    drawn = placed.project(
        f"* REPLACE (coalesce(dropped_by, {decision.dropped_by}) AS dropped_by)"
    )
    noted = drawn.project(f"* REPLACE ({_WITHOUT_SAMPLING} AS event), {decision.note} AS _note")
    sampled = _ordered(noted, weight=decision.weight, event=append_fields("event", "_note"))
    if config.strategy != "tail":
        return sampled
    # The join of `_with_tail` loses the order.
    return sampled.order("event_time, row_uid")


@dataclass(frozen=True)
class _Decision:
    """SQL for the outcome of an event.

    Attributes:
        dropped_by: the reason of a dropped event, NULL for a kept event.
        weight: number of events for which a kept event stands.
        note: the field ``_sampling`` of a kept event, with its comma in front.
    """

    dropped_by: str
    weight: str
    note: str


def _by_rate(strata: list[_Stratum], config: SampleConfig, key: str) -> _Decision:
    """The decision by the rate of the event's stratum."""
    return _Decision(
        dropped_by=_by_stratum(stratum.dropped_by(key) for stratum in strata),
        weight=_by_stratum(stratum.weight() for stratum in strata),
        note=_by_stratum(stratum.note(config.strategy) for stratum in strata),
    )


def _exactly(
    exact: list["_ExactType"],
    strata: list[_Stratum],
    config: SampleConfig,
    by_rate: _Decision,
) -> _Decision:
    """The decision for events of the types of ``exact``; other events are decided by rate."""
    reason = _by_stratum(quote(f"sampled_out:{stratum.name}") for stratum in strata)
    last_draw = _of_type(quote(kind.last_draw) for kind in exact)
    weight = _of_type(f"{kind.weight!r}::DOUBLE" for kind in exact)
    note = _of_type(quote(kind.note(config.strategy)) for kind in exact)
    return _Decision(
        dropped_by=f"""CASE WHEN _exact IS NULL THEN {by_rate.dropped_by}
            WHEN {last_draw} >= md5(row_uid) THEN NULL ELSE {reason} END""",
        weight=f"coalesce({weight}, {by_rate.weight})",
        note=f"coalesce({note}, {by_rate.note})",
    )


def _with_tail(frame: Frame, config: SampleConfig, key: str) -> Frame:
    """The frame with ``_tail``: not NULL in every event of a key whose events are all kept."""
    if config.strategy != "tail":
        return frame
    is_slow = "false"
    if config.tail_duration_ms is not None:
        is_slow = f"duration_ms > {config.tail_duration_ms}"
    of_interest = frame.filter(f"dropped_by IS NULL AND ({_IS_ERROR} OR {is_slow})")
    tails = of_interest.project(f"{key} AS _tail").distinct().set_alias("tails")
    keyed = frame.project(f"*, {key} AS _key").set_alias("events")
    joined = keyed.join(tails, "events._key = tails._tail", how="left")
    return joined.project("* EXCLUDE (_key)")


@dataclass(frozen=True)
class _ExactType:
    """A type of which an exact number of events is kept: the events with the lowest md5 of their row_uid.

    Attributes:
        name: the type.
        size: number of events of the type in the hour.
        kept: number of events to keep.
        last_draw: highest md5 of a kept event.
    """

    name: str
    size: int
    kept: int
    last_draw: str

    @property
    def weight(self) -> float:
        return self.size / self.kept

    def note(self, strategy: str) -> str:
        return _note(self.kept / self.size, strategy, self.weight)


def _exact_types(
    placed: Frame, strata: list[_Stratum], config: SampleConfig
) -> list[_ExactType]:
    """The types of this hour of which an exact number of events is kept."""
    adaptive = config.strategy == "adaptive"
    if not (adaptive or config.min_per_type):
        return []
    # Decimals, because a sum of floating-point numbers depends on their order.
    rates = _by_stratum(f"{stratum.rate:.12f}::DECIMAL(13, 12)" for stratum in strata)
    floor = config.min_per_type
    # A type needs the exact number if its rate is expected to keep few events: fewer than twice the
    # minimum, so that chance rarely goes below the minimum.
    limit, chosen, most = "expected", f"expected < {2 * floor}", 2 * floor
    if adaptive:
        limit, chosen = str(config.adaptive_target), "true"
        most = max(config.adaptive_target, 2 * floor)
    counted = placed.filter(
        f"dropped_by IS NULL AND {_may_be_exact(strata, config)}"
    ).aggregate(
        f"{_TYPE} AS kind, count(*) AS size, ceil(sum({rates}))::BIGINT AS expected, "
        f"min(md5(row_uid), {most}) AS lowest"
    )
    kept = f"least(size, greatest({limit}, {floor}))"
    wanted = counted.filter(chosen).project(f"kind, size, {kept}, lowest[{kept}]")
    rows = wanted.order("kind").fetchall()
    return [_ExactType(*row) for row in rows]


_TYPE = "coalesce(event_type, 'unknown')"
"""SQL for the type by which events are counted."""


def _may_be_exact(strata: list[_Stratum], config: SampleConfig) -> str:
    """SQL: whether an event's stratum can be drawn to an exact number."""
    by_rate: tuple[str, ...] = ("tail", "error")
    if config.strategy == "adaptive":
        by_rate = ("tail", "error", "type:")
    numbers = [
        str(n) for n, stratum in enumerate(strata) if not stratum.name.startswith(by_rate)
    ]
    return f"list_position([{', '.join(numbers)}], _stratum) IS NOT NULL"


def _number_of_type(
    exact: list[_ExactType], strata: list[_Stratum], config: SampleConfig
) -> str:
    """SQL for the position of an event's type among the exact types, from 1; NULL for other events."""
    names = ", ".join(quote(kind.name) for kind in exact)
    position = f"list_position([{names}], {_TYPE})"
    return f"CASE WHEN {_may_be_exact(strata, config)} THEN {position} END"


def _of_type(values: Iterable[str]) -> str:
    """SQL for the value of an event's exact type; NULL for other events."""
    return f"[{', '.join(values)}][_exact]"


def _ordered(frame: Frame, *, weight: str, event: str) -> Frame:
    """The frame's columns in order; a kept event gets the weight and the text ``event``, both SQL."""
    ours = ("_stratum", "_exact", "_tail", "_note", "weight", "dropped_by", "event")
    others = [name for name in frame.columns if name not in {*LINEAGE, *PROMOTED, *ours}]
    kept_weight = f"CASE WHEN dropped_by IS NULL THEN {weight} END AS weight"
    kept_event = f"CASE WHEN dropped_by IS NULL THEN {event} ELSE event END AS event"
    return frame.project(
        ", ".join([*LINEAGE, *PROMOTED, *others, kept_weight, "dropped_by", kept_event])
    )


_IS_ERROR = f"""(error IS NOT NULL
    OR {one_of("lower(status)", ERROR_STATUSES)}
    OR {one_of("event_level", GRAVE)}
    OR contains(lower(event_type), 'error') OR contains(lower(event_type), 'fail'))"""
_IS_SUCCESS = (
    f"({one_of('lower(status)', SUCCESS_STATUSES)} OR {one_of('event_level', SUCCESSES)})"
)


def _strata(config: SampleConfig) -> list[_Stratum]:
    """The strata of a configuration. The first stratum whose condition holds counts."""
    strata = [_Stratum("error", _IS_ERROR, config.error_rate)]
    if config.strategy == "tail":
        strata.insert(0, _Stratum("tail", "_tail IS NOT NULL", 1.0))
    for name, rate in config.type_rates.items():
        strata.append(_Stratum(f"type:{name}", f"{_TYPE} = {quote(name)}", rate))
    strata.append(_Stratum("success", _IS_SUCCESS, config.success_rate))
    strata.append(_Stratum("default", "true", config.default_rate))
    return strata


def _number_of(strata: list[_Stratum]) -> str:
    """SQL for the number of an event's stratum, from 0."""
    branches = [f"WHEN {stratum.condition} THEN {n}" for n, stratum in enumerate(strata)]
    return f"CASE {' '.join(branches)} END"


def _by_stratum(values: Iterable[str]) -> str:
    """SQL for the value of an event's stratum."""
    branches = [f"WHEN {n} THEN {value}" for n, value in enumerate(values)]
    return f"CASE _stratum {' '.join(branches)} END"


# Loggers write these texts where there is no trace. Events without a trace would all share a key, and would
# be kept or dropped together, in every hour.
_NO_TRACE = (
    *("null", "none", "nil", "n/a", r"n\.a\.?", "na", "nan", "undefined", "unknown", "empty"),
    *("missing", "absent", "invalid", "disabled", "unset", "not[ _-]?(set|available)", "tbd"),
    *(
        "no-?op",
        "false",
        "default",
        "anonymous",
        "no[ _-]?trace([ _-]?id)?",
        "unsampled",
        "not[ _-]?sampled",
        "x+",
    ),
)
_ZEROS = r"(root=|projects/[^/]*/traces/)?(0x|[01]-|0?[01]-)?[\s\pP\pS0]*(-0?1|o=0)?"
"""Zeros, also in the forms of X-Ray (``1-00000000-…``), W3C (``00-000…-000…-01``) and Google Cloud (``…;o=0``)."""
_TEMPLATE = r".*(\$\{|\{\{|%x?\{|#\{).*|\$[a-z_.]+"
_PLACEHOLDERS = (
    rf"{_ZEROS}|-1|f{{16,}}|([\s\pP\pS]*({'|'.join(_NO_TRACE)})[\s\pP\pS]*)+|{_TEMPLATE}"
)


def _key(config: SampleConfig) -> str:
    """SQL for the key of the draw."""
    if config.strategy in ("random", "adaptive"):
        return "row_uid"
    keys: tuple[str, ...] = ("trace_id", "session_id")
    if config.deterministic_key:
        keys = (config.deterministic_key,)
    given = [
        f"CASE WHEN NOT regexp_full_match(lower({key}), {quote(_PLACEHOLDERS)}) THEN {key} END"
        for key in keys
    ]
    return f"coalesce({', '.join(given)}, row_uid)"


# A field that this sampler wrote is cut off as text, so that an event restored from an archive keeps its
# bytes. A field `_sampling` of another program is rare: there the event's numbers are written anew.
_OURS = r""",?"_sampling":\{"rate":[0-9.e-]+,"strategy":"[a-z]+","weight":[0-9.e-]+\}\}$"""
_WITHOUT_OURS = f"regexp_replace(event, {quote(_OURS)}, '}}')"
_WITHOUT_SAMPLING = f"""CASE WHEN dropped_by IS NULL AND json_exists(event, '$._sampling')
    THEN CASE WHEN json_exists({_WITHOUT_OURS}, '$._sampling')
        THEN json_merge_patch(event, '{{"_sampling": null}}')::VARCHAR ELSE {_WITHOUT_OURS} END
    ELSE event END"""
