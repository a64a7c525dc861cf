"""Which events are kept by rate, and how many each kept one stands for. Rules are `obs_assets.transforms.filter`'s.

The draw is a hash of the event's trace, so that a trace is kept or dropped whole, and a rebuild draws the same. What is
kept at one rate is kept at every higher rate.

Every event stays in the frame: the verdict is a column, ``dropped_by``, so that a stage can count before it writes.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from obs_assets.config import Block
from obs_assets.events import LINEAGE, PROMOTED, Frame, append_fields, one_of, quote
from obs_assets.severities import GRAVE, SUCCESSES

ERROR_STATUSES = ("error", "failed")
SUCCESS_STATUSES = ("success", "completed")

Rate = Annotated[float, Field(ge=0, le=1, json_schema_extra={"unit": "share, 0 to 1"})]
"""The share of events to keep: 1 keeps all, 0 none."""

Key = Literal["trace_id", "session_id", "event_id", "worker_id", "row_uid"]


def _as_column(key: Any) -> Any:
    """A key by its older name, as the name that it has now."""
    return "event_id" if key == "id" else key


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
        """Whether an event alone says what becomes of it, rather than all the events of its hour."""
        return self.strategy in ("deterministic", "random") and not self.min_per_type


@dataclass(frozen=True)
class _Stratum:
    """Events that share a rate: those for which the condition holds and none before it does.

    Its methods give SQL.
    """

    name: str
    condition: str
    rate: float

    def dropped_by(self, key: str) -> str:
        """NULL if an event with this key is kept."""
        return f"CASE WHEN {self._keeps(key)} THEN NULL ELSE {quote(f'sampled_out:{self.name}')} END"

    def _keeps(self, key: str) -> str:
        if self.rate in (0, 1):
            return str(self.rate == 1)
        # md5 ÷ 2¹²⁸ < rate. Hexadecimal texts of one length compare like the numbers that they write.
        return f"md5({key}) < '{math.ceil(self.rate * 2**128):032x}'"

    def weight(self) -> str:
        """How many events a kept one stands for."""
        return f"'{1 / self.rate!r}'::DOUBLE" if self.rate else "NULL"

    def note(self, strategy: str) -> str:
        """The field ``_sampling`` of a kept event, with its comma in front."""
        if not self.rate:
            return "NULL"
        return quote(_note(self.rate, strategy, 1 / self.rate))


def _note(rate: float, strategy: str, weight: float) -> str:
    about = {"rate": _number(rate), "strategy": strategy, "weight": _number(weight)}
    return ',"_sampling":' + json.dumps(about, separators=(",", ":"))


def _number(value: float) -> float:
    """1 rather than 1.0."""
    return int(value) if value.is_integer() else value


def sample(frame: Frame, config: SampleConfig | None) -> Frame:
    """Say of every event whether its rate drops it and, if not, how many events it stands for.

    The first of these strata decides:

    ===============  =====================================================================================
    ``tail``         with the strategy ``tail``: the key has an error, or an event that took too long
    ``error``        ``error`` is given; or the status is error or failed; or the level is one of
                     `severities.GRAVE`; or the type contains error or fail
    ``type:<type>``  ``type_rates`` names the type
    ``success``      the status is success or completed, or the level info or success
    ``default``      all others
    ===============  =====================================================================================

    Weights are unbiased: 1 ÷ rate; n ÷ m where exactly m of n events of a type are drawn, which is decided by n alone,
    never by the draw.

    Status and type are read in lower case, but ``type_rates`` exactly.

    The draw is by trace, each kept event has a weight, and a status counts in any case.

    Args:
        frame: lineage, promoted columns and ``event``; events that have a ``dropped_by`` keep it.
        config: None, or a disabled one, keeps every event, with a weight of 1, as it is.

    Returns:
        Lineage, promoted and other columns, ``weight`` (DOUBLE; NULL: dropped), ``dropped_by`` (VARCHAR,
        ``sampled_out:<stratum>``; NULL: kept), ``event``; same rows, same order. The text of a kept event gets
        ``_sampling`` with rate, strategy and weight, in the place of one it may have come with.
    """
    given = (
        frame
        if "dropped_by" in frame.columns
        else frame.project("*, NULL::VARCHAR AS dropped_by")
    )
    if config is None or not config.enabled:
        return _ordered(given, weight="1.0::DOUBLE", event="event")
    strata = _strata(config)
    key = _key(config)
    placed = _with_tail(given, config, key).project(f"*, {_number_of(strata)} AS _stratum")
    exact = _exact_types(placed, strata, config)
    dropped_by = _by_stratum(stratum.dropped_by(key) for stratum in strata)
    weight = _by_stratum(stratum.weight() for stratum in strata)
    note = _by_stratum(stratum.note(config.strategy) for stratum in strata)
    if exact:
        placed = placed.project(f"*, {_number_of_type(exact, strata, config)} AS _exact")
        sampled_out = _by_stratum(quote(f"sampled_out:{stratum.name}") for stratum in strata)
        drawn_exactly = f"{_of_type(quote(kind.last_draw) for kind in exact)} >= md5(row_uid)"
        dropped_by = f"""CASE WHEN _exact IS NULL THEN {dropped_by} WHEN {drawn_exactly} THEN NULL
            ELSE {sampled_out} END"""
        weight = (
            f"coalesce({_of_type(repr(kind.weight) + '::DOUBLE' for kind in exact)}, {weight})"
        )
        note = (
            f"coalesce({_of_type(quote(kind.note(config.strategy)) for kind in exact)}, {note})"
        )
    drawn = placed.project(f"* REPLACE (coalesce(dropped_by, {dropped_by}) AS dropped_by)")
    noted = drawn.project(f"* REPLACE ({_WITHOUT_SAMPLING} AS event), {note} AS _note")
    sampled = _ordered(noted, weight=weight, event=append_fields("event", "_note"))
    return (
        sampled.order("event_time, row_uid") if config.strategy == "tail" else sampled
    )  # a join loses the order


def _with_tail(frame: Frame, config: SampleConfig, key: str) -> Frame:
    """The frame with ``_tail``: not NULL in every event of a key that is to be kept whole."""
    if config.strategy != "tail":
        return frame
    slow = (
        f"duration_ms > {config.tail_duration_ms}"
        if config.tail_duration_ms is not None
        else "false"
    )
    tails = (
        frame.filter(f"dropped_by IS NULL AND ({_IS_ERROR} OR {slow})")
        .project(f"{key} AS _tail")
        .distinct()
    )
    keyed = frame.project(f"*, {key} AS _key").set_alias("events")
    return keyed.join(
        tails.set_alias("tails"), "events._key = tails._tail", how="left"
    ).project("* EXCLUDE (_key)")


@dataclass(frozen=True)
class _ExactType:
    """A type of which exactly so many events are drawn: those with the lowest md5 of their row_uid."""

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
    """The types of this hour that are drawn to an exact number."""
    adaptive = config.strategy == "adaptive"
    if not (adaptive or config.min_per_type):
        return []
    # Decimals: a sum of floating-point numbers depends on their order
    rates = _by_stratum(f"{stratum.rate:.12f}::DECIMAL(13, 12)" for stratum in strata)
    floor = config.min_per_type
    most = max(config.adaptive_target if adaptive else 0, 2 * floor)
    counted = placed.filter(
        f"dropped_by IS NULL AND {_may_be_exact(strata, config)}"
    ).aggregate(
        f"{_TYPE} AS kind, count(*) AS size, ceil(sum({rates}))::BIGINT AS expected, "
        f"min(md5(row_uid), {most}) AS lowest"
    )
    limit = config.adaptive_target if adaptive else "expected"
    kept = f"least(size, greatest({limit}, {floor}))"
    chosen = "true" if adaptive else f"expected < {2 * floor}"
    rows = (
        counted.filter(chosen)
        .project(f"kind, size, {kept}, lowest[{kept}]")
        .order("kind")
        .fetchall()
    )
    return [_ExactType(*row) for row in rows]


_TYPE = "coalesce(event_type, 'unknown')"


def _may_be_exact(strata: list[_Stratum], config: SampleConfig) -> str:
    by_rate = ("tail", "error", "type:") if config.strategy == "adaptive" else ("tail", "error")
    numbers = [
        str(n) for n, stratum in enumerate(strata) if not stratum.name.startswith(by_rate)
    ]
    return f"list_position([{', '.join(numbers)}], _stratum) IS NOT NULL"


def _number_of_type(
    exact: list[_ExactType], strata: list[_Stratum], config: SampleConfig
) -> str:
    """SQL for the place of an event's type among those, from 1; NULL for others."""
    names = ", ".join(quote(kind.name) for kind in exact)
    return (
        f"CASE WHEN {_may_be_exact(strata, config)} THEN list_position([{names}], {_TYPE}) END"
    )


def _of_type(values: Iterable[str]) -> str:
    return f"[{', '.join(values)}][_exact]"


def _ordered(frame: Frame, *, weight: str, event: str) -> Frame:
    """The frame's columns in their order, weight and event given where the event is kept."""
    ours = ("_stratum", "_exact", "_tail", "_note", "weight", "dropped_by", "event")
    others = [name for name in frame.columns if name not in {*LINEAGE, *PROMOTED, *ours}]
    kept_weight = f"CASE WHEN dropped_by IS NULL THEN {weight} END AS weight"
    kept_event = f"CASE WHEN dropped_by IS NULL THEN {event} ELSE event END AS event"
    return frame.project(
        ", ".join([*LINEAGE, *PROMOTED, *others, kept_weight, "dropped_by", kept_event])
    )


_IS_ERROR = f"""(error IS NOT NULL OR {one_of("lower(status)", ERROR_STATUSES)} OR {one_of("event_level", GRAVE)}
    OR contains(lower(event_type), 'error') OR contains(lower(event_type), 'fail'))"""
_IS_SUCCESS = (
    f"({one_of('lower(status)', SUCCESS_STATUSES)} OR {one_of('event_level', SUCCESSES)})"
)


def _strata(config: SampleConfig) -> list[_Stratum]:
    return [
        *([_Stratum("tail", "_tail IS NOT NULL", 1.0)] if config.strategy == "tail" else []),
        _Stratum("error", _IS_ERROR, config.error_rate),
        *(
            _Stratum(f"type:{name}", f"coalesce(event_type, 'unknown') = {quote(name)}", rate)
            for name, rate in config.type_rates.items()
        ),
        _Stratum("success", _IS_SUCCESS, config.success_rate),
        _Stratum("default", "true", config.default_rate),
    ]


def _number_of(strata: list[_Stratum]) -> str:
    """SQL for the number of an event's stratum."""
    return f"CASE {' '.join(f'WHEN {stratum.condition} THEN {n}' for n, stratum in enumerate(strata))} END"


def _by_stratum(values: Iterable[str]) -> str:
    """SQL for the value of an event's stratum."""
    return f"CASE _stratum {' '.join(f'WHEN {n} THEN {value}' for n, value in enumerate(values))} END"


# Loggers write these where there is no trace: one key for all such events would keep all of them or none, in every hour
_PLACEHOLDERS = r"[\s0-]*|null|\(null\)|none|nil|n/a|na|undefined|unknown|no-op|noop|false"


def _key(config: SampleConfig) -> str:
    """SQL for what is drawn by."""
    if config.strategy in ("random", "adaptive"):
        return "row_uid"
    keys = (
        (config.deterministic_key,) if config.deterministic_key else ("trace_id", "session_id")
    )
    given = [
        f"CASE WHEN NOT regexp_full_match(lower({key}), {quote(_PLACEHOLDERS)}) THEN {key} END"
        for key in keys
    ]
    return f"coalesce({', '.join(given)}, row_uid)"


# What this sampler wrote comes off as text, so that an event restored from an archive stays as it was. What another has
# written, anywhere in the event, is rare: that numbers are written anew does no harm.
_OURS = r""",?"_sampling":\{"rate":[0-9.e-]+,"strategy":"[a-z]+","weight":[0-9.e-]+\}\}$"""
_WITHOUT_OURS = f"regexp_replace(event, {quote(_OURS)}, '}}')"
_WITHOUT_SAMPLING = f"""CASE WHEN dropped_by IS NULL AND json_exists(event, '$._sampling')
    THEN CASE WHEN json_exists({_WITHOUT_OURS}, '$._sampling')
        THEN json_merge_patch(event, '{{"_sampling": null}}')::VARCHAR ELSE {_WITHOUT_OURS} END
    ELSE event END"""
