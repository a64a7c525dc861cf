"""Nothing personal and no secret beyond this step: ``enriched_events`` become ``redacted_events``.

The rules are in `obs_assets.transforms.detectors`; here is how they reach every string, number and key of an event at
the speed of a database:

1. DuckDB looks at the raw text of each event for any trigger. Without one the event passes as the bytes it is.
2. Python finds the triggers in the others and walks to the members that they touch, keeping track of the path.
3. Such a member is decoded and judged by the exact rules; the outcome is remembered, since values repeat.
4. The new literals are spliced into the text. Everything else keeps its bytes, numbers keep their digits.

`redact_text` walks to every member of an event instead, trigger or not, and never edits in place: for single events,
and the slow truth that the fast way is tested against.

An event on which the redactor fails is set aside as a dead letter, without a word of it in any message.
"""

import functools
import hmac
import itertools
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias, TypeVar, get_args

import duckdb.func
import re2
from pydantic import AliasChoices, BaseModel, Field, model_validator

from obs_assets.config import Block
from obs_assets.errors import ConfigurationError, PermanentError
from obs_assets.events import Frame, count_by, quote, with_columns
from obs_assets.transforms.detectors import (
    BASE64,
    DETECTORS,
    ENCODED,
    VALIDATORS,
    Detector,
    Span,
    custom_detector,
    find_base64,
    is_redacted,
    is_secret_key,
    is_secret_value,
    mask_all,
    reveal,
)

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Mode: TypeAlias = Literal["mask", "hash", "remove"]
TypeMode: TypeAlias = Literal["mask", "hash", "remove", "keep"]

REDACTOR_FAILED = "redactor_failed"
"""Why a row is dropped: the redactor raised on it."""


class CustomPattern(BaseModel, frozen=True, extra="forbid"):
    """A pattern of one's own.

    Attributes:
        name: what its values are counted as, and their type in ``_redaction``.
        regex: RE2 syntax: linear in time whatever the text, without lookaround and backreferences.
        flags: ``i`` ignore case, ``m`` lines, ``s`` dot matches newlines; the original's ``g`` and ``u`` are implied.
        validator: what a match must pass besides: ``luhn``, ``iban``, ``has_digit`` or ``has_letter_and_digit``.
        replacement: left in a value's place, whatever the mode; the pattern may not match it.
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")
    regex: str = Field(min_length=1)
    flags: str = Field("", pattern=r"^[gimsu]*$")
    validator: str | None = None
    replacement: str | None = None

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        if self.validator not in (None, *VALIDATORS):
            raise ValueError(f"validator {self.validator!r} is unknown; there are {', '.join(VALIDATORS)}")
        self.detector()
        return self

    def detector(self) -> Detector:
        """The rule that it stands for."""
        flags = "".join(sorted(set(self.flags) - {"g", "u"}))
        return custom_detector(self.name, self.regex, flags, self.validator, self.replacement)


class RedactConfig(Block, frozen=True):
    """What is redacted, where, and what is left in its place.

    No redact block means this class's defaults: redaction is on.

    Attributes:
        mode: ``mask`` shows a little (see `obs_assets.transforms.detectors`; nothing of passwords and social security
            numbers), ``hash`` leaves a token that is equal for equal values, ``remove`` leaves ``[REDACTED]``.
        modes: another mode for single types, built-in or custom: ``{ip_address: hash, phone: keep}``; ``keep`` lets
            the values of that type be.
        detect_email: and so on: whether that type is looked for.
        patterns: further patterns; they come before the built-in ones.
        fields_to_scan: redact only here; everywhere by default. Paths are dot-separated, a list's elements are numbered
            from 0, JSON inside a string goes on below the string's path. ``*`` stands for one segment or a part of it,
            ``**`` for any number of segments. A path covers what is below it.
        fields_to_skip: never here, paths as above.
        allow_unredacted: must stand beside ``enabled: false``.
    """

    mode: Mode = Field("mask", validation_alias=AliasChoices("mode", "redaction_mode"))
    modes: Mapping[str, TypeMode] = Field(default_factory=dict)
    detect_email: bool = True
    detect_phone: bool = True
    detect_ssn: bool = True
    detect_credit_card: bool = True
    detect_api_key: bool = True
    detect_password: bool = True
    detect_ip_address: bool = True
    detect_iban: bool = True
    detect_mac_address: bool = True
    patterns: tuple[CustomPattern, ...] = ()
    fields_to_scan: tuple[str, ...] | None = None
    fields_to_skip: tuple[str, ...] = ("_id", "timestamp", "type", "_source", "_destination", "_enrichment")
    allow_unredacted: bool = False

    @model_validator(mode="after")
    def _is_off_on_purpose(self) -> Self:
        if not self.enabled and not self.allow_unredacted:
            raise ValueError(
                "enabled: false lets personal data reach every destination; set allow_unredacted: true beside it if "
                "that is meant"
            )
        return self

    @model_validator(mode="after")
    def _knows_the_types_of_modes(self) -> Self:
        known = _TYPES.union(pattern.name for pattern in self.patterns)
        if unknown := sorted(set(self.modes) - known):
            raise ValueError(f"modes: unknown type {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        return self

    def __hash__(self) -> int:
        """Equal configurations share their compiled rules."""
        return hash(self.model_dump_json())

    def detects(self, type_: str) -> bool:
        """Whether a built-in type is looked for."""
        return bool(getattr(self, f"detect_{type_}")) and self.modes.get(type_) != "keep"

    def detectors(self) -> tuple[Detector, ...]:
        """The rules to apply, in order."""
        custom = (pattern.detector() for pattern in self.patterns if self.modes.get(pattern.name) != "keep")
        return (*custom, *(detector for detector in DETECTORS if self.detects(detector.type)))


def redact(
    connection: "duckdb.DuckDBPyConnection", frame: Frame, config: RedactConfig, hash_key: bytes | None = None
) -> Frame:
    """Redact every event of a frame.

    Args:
        connection: the frame's own.
        frame: lineage, promoted columns and ``event``, the text of one JSON object on one line.
        config: what, where and how.
        hash_key: the key of ``hash`` tokens: who has it can test guesses.

    Returns:
        lineage and promoted columns recomputed, ``event``, and two more; same rows, same order:
        redactions: VARCHAR[], the type of each redacted value, sorted; empty for an event that is as it was.
        dropped_by: VARCHAR, NULL, or `REDACTOR_FAILED` for a row that must not pass; its ``event`` is ``{}``.

    Raises:
        ConfigurationError: ``hash`` without a key.
    """
    if not config.enabled:
        untouched = frame.project("*, []::VARCHAR[] AS redactions, NULL::VARCHAR AS dropped_by")
        return with_columns(untouched, "redactions", "dropped_by")
    redactor = _redactor(config, hash_key)
    function = _register(connection, redactor)
    fires = " OR ".join(f"regexp_matches(event, {quote(trigger)})" for trigger in redactor.prefilters)
    outcomes = frame.project(f"*, CASE WHEN {fires} THEN {function}(event) END AS outcome")
    redacted = outcomes.project(
        "* REPLACE (coalesce(outcome.event, event) AS event), coalesce(outcome.types, []) AS redactions, "
        f"CASE WHEN outcome.failed THEN '{REDACTOR_FAILED}' END AS dropped_by"
    )
    return with_columns(redacted, "redactions", "dropped_by")


def redacted_by_type(frame: Frame) -> dict[str, int]:
    """Redacted values by type, from a frame's ``redactions``; largest first."""
    return count_by(frame.project("unnest(redactions) AS type"), "type")


def redact_text(event: str, config: RedactConfig, hash_key: bytes | None = None) -> tuple[str, dict[str, int]]:
    """Redact one event.

    Args:
        event: the text of one JSON object.
        config: as for `redact`.
        hash_key: as for `redact`.

    Returns:
        the event, the same text if nothing was found; redacted values by type.

    Raises:
        ConfigurationError: ``hash`` without a key.
        PermanentError: the redactor failed on it, for example because it is no JSON object. The event must not pass.
    """
    if not config.enabled:
        return event, {}
    outcome = _redactor(config, hash_key).redact(event)
    if outcome.failed:
        raise PermanentError("the redactor failed on an event; it must not pass")
    return event if outcome.event is None else outcome.event, dict(Counter(outcome.types))


# --- From a frame to Python and back ---------------------------------------------------------------------------------

_OUTCOME = "STRUCT(event VARCHAR, types VARCHAR[], failed BOOLEAN)"
_function_numbers = itertools.count()
_one_at_a_time = threading.Lock()
"""Threads that hand the interpreter's lock to one another within a vector cost a fifth of the speed."""


def _register(connection: "duckdb.DuckDBPyConnection", redactor: "_Redactor") -> str:
    """Make a redactor known to a connection; returns the function's name there."""
    name = f"redact_{next(_function_numbers)}"
    connection.create_function(
        name,
        lambda events: _redact_arrow(redactor, events),
        ["VARCHAR"],
        _OUTCOME,
        type=duckdb.func.ARROW,
        side_effects=True,  # else a filter on dropped_by has the optimizer compute everything twice
    )
    return name


def _redact_arrow(redactor: "_Redactor", events: "pa.Array") -> "pa.Array":
    """One vector of the events in which a trigger fires."""
    import pyarrow as pa

    with _one_at_a_time:
        columns = zip(*map(redactor.redact_hit, events.to_pylist()), strict=True)
    types = (pa.string(), pa.list_(pa.string()), pa.bool_())
    return pa.StructArray.from_arrays(
        [pa.array(column, type_) for column, type_ in zip(columns, types, strict=True)], names=_Outcome._fields
    )


# --- One event -------------------------------------------------------------------------------------------------------

_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NUMBER = r"-?[0-9][0-9.eE+-]*+"
_TOKEN = re.compile(
    rf"[\s,]*+(?:(?P<string>{_STRING})(?:(?P<colon>\s*+:\s*+)(?:(?P<value>{_STRING}|{_NUMBER})|(?P<inner>[\[{{]))?)?"
    rf"|(?P<number>{_NUMBER})|(?P<bracket>[\[\]{{}}])|true|false|null)\s*+"
)
"""One step through JSON text: a key with what is or begins behind it, an element, a bracket."""

_SCALAR = rf"(?:{_STRING}|{_NUMBER}|true|false|null)"
_FLAT = rf"\[(?:[\s,]*+{_SCALAR})*+\s*+\]|\{{(?:[\s,]*+{_STRING}\s*+:\s*+{_SCALAR})*+\s*+\}}"
_MEMBERS = re.compile(rf"(?:[\s,]*+{_STRING}\s*+:\s*+(?:{_SCALAR}|{_FLAT})(?=\s*+,))*+")
"""Members of an object, all at once, as far as their values are flat and a comma follows."""

_BASE64 = re.compile(BASE64)
_MAX_WRAPPINGS = 3
"""Base64 of base64 and so on."""

_MAX_ROUNDS = 10
"""What a rule takes out may have hidden a value from another one: look again until nothing is found."""

_DOCUMENT = re.compile(r"\s*[\[{]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

_Result = TypeVar("_Result")
_REMEMBERED = 1 << 15
_REMEMBERED_LENGTH = 1_000

_TRIGGER_BYTES = 64 << 20

_MAX_DEPTH = 200
_MAX_SHOWN = 256
"""Levels in which values are redacted, and characters of a path in ``_redaction``: neither may blow up an event."""

_MARK = "_redaction"
_MARK_TRIGGER = rf'{_MARK}\\*"\s*:'
_TYPES = {detector.type for detector in DETECTORS}


class _Outcome(NamedTuple):
    """What became of an event: its new text or None, the type of each value redacted, whether the redactor failed."""

    event: str | None = None
    types: tuple[str, ...] = ()
    failed: bool = False


_FAILED = _Outcome("{}", (), failed=True)


class _Redacted(NamedTuple):
    """A string in its redacted form, and the type of each value redacted in it."""

    text: str
    types: tuple[str, ...]


class _Key(NamedTuple):
    """What a key comes to.

    Attributes:
        name: its text after redaction, which is the context of its value.
        redacted: the same with the types, if that is a change.
        is_secret: whether all that stands under it is to be redacted whole.
    """

    name: str
    redacted: _Redacted | None
    is_secret: bool


class _Verdict(NamedTuple):
    """What a member comes to, wherever in an event it stands.

    Attributes:
        key: its key redacted.
        value: its string or number redacted.
        document: its string, if that is JSON with something to redact in it.
        is_secret: whether everything in it, a list or an object, is to be redacted whole.
    """

    key: _Redacted | None = None
    value: _Redacted | None = None
    document: str | None = None
    is_secret: bool = False


_HARMLESS = _Verdict()
_NO_KEY = _Key("", None, is_secret=False)


class _Field(NamedTuple):
    """Where something was redacted: the path as it is after redaction, and the type of the value."""

    field: str
    type: str


class _Place(NamedTuple):
    """A path: as it is in the event, and as it may be shown."""

    path: str
    shown: str

    def fields(self, types: Iterable[str]) -> set[_Field]:
        """What is to be said of values of these types here."""
        return {_Field(self.shown, type_) for type_ in types}


class _Redactor:
    """The rules of one configuration, compiled."""

    def __init__(self, config: RedactConfig, hash_key: bytes | None) -> None:
        self.mode = config.mode
        self.modes: dict[str, str] = {type_: mode for type_, mode in config.modes.items() if mode != config.mode}
        self.hash_key = hash_key
        self.detectors = config.detectors()
        self.hides_secrets = config.detects("password")
        triggers = (ENCODED, _MARK_TRIGGER, *(detector.trigger for detector in self.detectors))
        # One automaton for all outgrows the memory that DuckDB gives it, and runs at half the speed of two
        half = len(triggers) // 2
        self.prefilters = (_any_of(triggers[:half]), _any_of(triggers[half:]))
        self.known_types = _TYPES.union(detector.type for detector in self.detectors)
        self.any_trigger = re2.compile(_any_of(triggers), _options())
        self.triggers = _trigger_set(self.detectors)
        self.scanned = None if config.fields_to_scan is None else _paths(config.fields_to_scan)
        self.skipped = _paths(config.fields_to_skip)
        self.judge = _remembered(self._judge)
        self.covers = _remembered(self._covers)
        self._key = _remembered(self._judge_key)
        self._field = _remembered(self._field_json)

    def redact(self, event: str) -> _Outcome:
        """Redact one event by a walk to every string and number in it."""
        return _guarded(event, lambda: self._walk(event, _everywhere(event)))

    def redact_hit(self, event: str) -> _Outcome:
        """Redact one event, looking only where a trigger fires, and in place if that will do."""
        return _guarded(event, lambda: self._redact_hits(event))

    def _redact_hits(self, event: str) -> _Outcome:
        text = event.encode() if event.isascii() else event  # of bytes, RE2 need not count characters
        hits = [match.span() for match in self.any_trigger.finditer(text)]
        if "\\" not in event and _MARK not in event and (outcome := self._in_place(event, hits)) is not None:
            return outcome
        return self._walk(event, hits)

    def _walk(self, event: str, hits: list[Span]) -> _Outcome:
        walk = _Walk(self, event, hits)
        walk.run()
        return _Outcome(walk.marked_text(), tuple(sorted(walk.types))) if walk.types else _Outcome()

    def _in_place(self, event: str, hits: list[Span]) -> _Outcome | None:
        """Redact an event without escapes whose hits all lie in one string each, or in its key too.

        Nine hits in ten are of this kind, and found without a walk: quotes stand only around strings there. None for
        any other event: numbers, objects under a secret's key, keys to rename, JSON in strings.
        """
        edits: list[tuple[int, int, str]] = []
        types: list[str] = []
        fields: set[_Field] = set()
        done = 0
        for hit_start, hit_end in hits:
            if hit_end <= done:
                continue
            place = _string_at(event, hit_start, hit_end)
            if place is None:
                return None
            key_start, key_end, start, end = place
            key, literal = event[key_start:key_end], event[start:end]
            verdict = self.judge(key, literal)
            done = end
            if verdict is _HARMLESS:
                continue
            if verdict.value is None or verdict.key or verdict.document:
                return None
            path = _path_to(event[: key_start if key else start], key[1:-1])
            if self.covers(path):
                value = verdict.value
                edits.append((start, end, _encode(value.text, literal)))
                types += value.types
                fields.update(_Field(path, type_) for type_ in value.types)
        if not edits:
            return _Outcome()
        text = _splice(event, edits).rstrip()
        return _Outcome(f'{text[:-1]},"{_MARK}":{self.mark(fields)}}}', tuple(sorted(types)))

    def _judge(self, key: str, value: str) -> _Verdict:
        """What a member comes to.

        Args:
            key: its literal; empty for an element of a list.
            value: the literal of its string or number; empty for anything else.
        """
        name, new_name, is_secret = self._key(key) if key else _NO_KEY
        if not value:
            return _Verdict(new_name, is_secret=is_secret) if new_name or is_secret else _HARMLESS
        new_value, document = self.hide(value, name) if is_secret else None, None
        if not new_value:
            new_value, document = self._judge_value(name, value)
        return _Verdict(new_name, new_value, document) if new_name or new_value or document else _HARMLESS

    def _judge_key(self, literal: str) -> _Key:
        name = _decode(literal)
        redacted = self.redact_string(name)
        shown = redacted.text if redacted else name
        return _Key(shown, redacted, self.hides_secrets and (is_secret_key(name) or is_secret_key(shown)))

    def _judge_value(self, key: str, literal: str) -> tuple[_Redacted | None, str | None]:
        """A string or number redacted, or a string that is JSON with something to redact in it."""
        text = _decode(literal)
        if is_redacted(text):
            return None, None
        if _is_document(text):
            walk = _Walk(self, text, _everywhere(text), _Place("", ""))
            walk.run()
            return None, text if walk.types else None
        return self.redact_string(text, key), None

    def hide(self, literal: str, key: str = "") -> _Redacted | None:
        """A string or number under a secret's key, redacted whole; None if it cannot be one."""
        text = _decode(literal)
        if not is_secret_value(key, text, is_number=literal[0] != '"'):
            return None
        return _Redacted(self._replace(text, "password", mask_all), ("password",))

    def redact_string(self, text: str, key: str = "", wrapped: int = 0) -> _Redacted | None:
        """A string with its values redacted, those that are encoded too; None if there are none."""
        types: list[str] = []
        for _ in range(_MAX_ROUNDS):
            known = len(types)
            text = self._apply(text, key, types)
            if not text.isascii() or "%" in text or "&" in text or "\\" in text:
                text = self._apply_hidden(text, key, types)
            if wrapped < _MAX_WRAPPINGS and _BASE64.search(text):
                text = self._apply_base64(text, types, wrapped + 1)
            if len(types) == known:
                break
        return _Redacted(text, tuple(types)) if types else None

    def _apply_hidden(self, text: str, key: str, types: list[str]) -> str:
        """Run the rules on what a string says when its encodings are undone, such as ``u%40example.com``."""
        revealed = reveal(text)
        if revealed is None:
            return text
        for detector in self._fired(f"{key}: {revealed[0]}"):
            plain, offsets = revealed
            edits = [
                (offsets[start], offsets[end], self._replacement(plain[start:end], detector))
                for start, end in detector.find(plain, key)
                if not is_redacted(plain[start:end])
            ]
            if edits:
                types += [detector.type] * len(edits)
                text = _splice(text, edits)
                revealed = reveal(text)
                if revealed is None:
                    break
        return text

    def _apply_base64(self, text: str, types: list[str], wrapped: int) -> str:
        """Redact base64 whole if there is a value in what it says."""
        edits = []
        for (start, end), plain in find_base64(text):
            redacted = self.redact_string(plain, wrapped=wrapped)
            if redacted:
                types += redacted.types
                edits.append((start, end, self._replace(plain, redacted.types[0], mask_all)))
        return _splice(text, edits)

    def _apply(self, text: str, key: str, types: list[str]) -> str:
        """Run the rules whose trigger fires, in their order, each on what the one before has left."""
        for detector in self._fired(f"{key}: {text}"):
            pieces, copied = [], 0
            for start, end in detector.find(text, key):
                value = text[start:end]
                if not is_redacted(value):
                    pieces += [text[copied:start], self._replacement(value, detector)]
                    types.append(detector.type)
                    copied = end
            text = "".join([*pieces, text[copied:]])
        return text

    def _fired(self, text: str) -> list[Detector]:
        fired = self.triggers.Match(text if text.isascii() else _SURROGATE.sub("\ufffd", text))
        if not fired:
            raise MemoryError("RE2 gave up")
        return [self.detectors[index] for index in sorted(fired)[:-1]]

    def _replacement(self, value: str, detector: Detector) -> str:
        return detector.replacement or self._replace(value, detector.type, detector.mask)

    def _replace(self, value: str, type_: str, mask: Callable[[str], str]) -> str:
        mode = self.modes.get(type_, self.mode)
        if mode == "mask":
            return mask(value)
        if mode == "remove" or self.hash_key is None:
            return "[REDACTED]"
        message = f"{type_}:{value}".encode("utf-8", "surrogatepass")
        return f"[REDACTED:{hmac.digest(self.hash_key, message, 'sha256').hex()[:32]}]"

    def _covers(self, path: str) -> bool:
        """Whether a path is to be redacted."""
        dotted = _SURROGATE.sub("\ufffd", path) + "."
        is_scanned = self.scanned is None or self.scanned.fullmatch(dotted) is not None
        return is_scanned and self.skipped.fullmatch(dotted) is None

    def mark(self, fields: Collection[_Field]) -> str:
        """The JSON of ``_redaction``."""
        entries = ",".join(itertools.starmap(self._field, sorted(fields)))
        return f'{{"redacted":true,"mode":"{self.mode}","fields":[{entries}]}}'

    def _field_json(self, field: str, type_: str) -> str:
        told = {"field": self._shown(field), "type": type_}
        if type_ in self.modes:
            told["mode"] = self.modes[type_]
        return json.dumps(told, separators=(",", ":"))

    def _shown(self, path: str) -> str:
        """A path, which may read like a value although no key in it does: ``u@example`` above ``com``."""
        redacted = self.redact_string(path)
        shown = path if redacted is None else redacted.text
        return shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 1]}…"

    def fields_of_mark(self, mark: Any) -> set[_Field] | None:
        """The fields of a ``_redaction`` that a redaction has written; None for anything else under that name."""
        try:
            fields = [_Field(field["field"], field["type"]) for field in mark["fields"]]
            told = [
                {**field._asdict(), **({"mode": entry["mode"]} if entry.get("mode") in get_args(Mode) else {})}
                for field, entry in zip(fields, mark["fields"], strict=True)
            ]
            expected = {"redacted": True, "mode": mark["mode"], "fields": told}
            is_own = mark == expected and all(
                field.type in self.known_types and field.field == self._shown(field.field) for field in fields
            )
        except (KeyError, TypeError):
            return None
        return set(fields) if is_own and mark["mode"] in get_args(Mode) else None


def _guarded(event: str, redact_it: Callable[[], _Outcome]) -> _Outcome:
    """The outcome for an event, a failed one if anything goes wrong."""
    if not event.lstrip().startswith("{"):
        return _FAILED
    try:
        return redact_it()
    except Exception:  # noqa: BLE001 - whatever went wrong, the event must not pass, and no message may quote it
        return _FAILED


def _remembered(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """A function of texts that remembers its last outcomes, those of long texts not: what it holds is bounded."""
    recall = functools.lru_cache(_REMEMBERED)(function)

    def call(*texts: str) -> _Result:
        return recall(*texts) if len("".join(texts)) <= _REMEMBERED_LENGTH else function(*texts)

    return call


@functools.lru_cache(maxsize=8)
def _redactor(config: RedactConfig, hash_key: bytes | None) -> _Redactor:
    if "hash" in (config.mode, *config.modes.values()) and not hash_key:
        raise ConfigurationError("redact: mode hash needs a key: set OBS_HASH_KEY to a long random text")
    return _Redactor(config, hash_key)


def _any_of(triggers: Iterable[str]) -> str:
    return "|".join(f"(?:{trigger})" for trigger in triggers)


def _options() -> Any:
    options = re2.Options()
    options.max_mem = _TRIGGER_BYTES
    options.log_errors = False
    return options


def _trigger_set(detectors: tuple[Detector, ...]) -> Any:
    """All triggers at once, and behind them one that always fires: RE2 says nothing at all when out of memory."""
    triggers = re2.Set.SearchSet(_options())
    for trigger in (*(detector.trigger for detector in detectors), "^"):
        triggers.Add(trigger)
    triggers.Compile()
    return triggers


def _paths(globs: tuple[str, ...]) -> Any:
    """RE2 for paths, a dot at their end, that one of the globs covers; linear, since keys are anybody's text."""
    return re2.compile("|".join(f"(?:{_path(glob)}(?s:.*))" for glob in globs) or r"\z.")


def _path(glob: str) -> str:
    return "".join(
        r"(?:[^.]*\.)*" if segment == "**" else r"[^.]*".join(map(re2.escape, segment.split("*"))) + r"\."
        for segment in glob.split(".")
    )


def _decode(literal: str) -> str:
    """What a JSON literal stands for, a number as it is written."""
    if literal[0] != '"':
        return literal
    return str(json.loads(literal)) if "\\" in literal else literal[1:-1]


def _encode(text: str, like: str) -> str:
    """A string as a JSON literal; in ASCII if the literal before was, so that no lone surrogate leaves its escape."""
    return json.dumps(text, ensure_ascii="\\u" in like or like.isascii())


def _is_document(text: str) -> bool:
    """Whether a string is a JSON object or list itself."""
    if _DOCUMENT.match(text) is None:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _string_at(event: str, hit_start: int, hit_end: int) -> tuple[int, int, int, int] | None:
    """The string, not a key, that a hit touches, in an event without escapes: (its key's span, its own span).

    The key's span is empty for an element of a list. None if the hit touches anything else, except for the key.
    """
    if not event.count('"', 0, hit_start + 1) % 2:
        return None
    start = event.rfind('"', 0, hit_start + 1)
    end = event.find('"', start + 1) + 1
    key_start = key_end = start
    if event.startswith(':"', end):
        key_end, start = end, end + 1
        end = event.find('"', start + 1) + 1
    elif event[end : end + 1] not in (",", "}", "]"):
        return None
    elif event[start - 1] == ":":
        key_end = start - 1
        key_start = event.rfind('"', 0, key_end - 1)
    elif event[start - 1] not in "[,":
        return None
    return (key_start, key_end, start, end) if hit_end <= end + 1 else None


def _path_to(before: str, key: str) -> str:
    """The path of a member or element, from an event's text before it, without escapes, and its key."""
    if before.count("{") == 1 and "[" not in before:
        return key
    names: list[str | int] = []
    last = ""
    for index, piece in enumerate(before.split('"')):
        if index % 2:
            last = piece
        elif piece not in (":", ","):
            _follow(piece, last, names)
        elif piece == "," and isinstance(names[-1], int):
            names[-1] += 1
        elif piece == ":":
            names[-1] = last
    if isinstance(names[-1], str):
        names[-1] = key
    if len(names) > _MAX_DEPTH:
        raise ValueError("too deep")
    return ".".join(map(str, names))


def _follow(structure: str, last: str, names: list[str | int]) -> None:
    """Keep track of where one is through the text between two strings."""
    for character in structure:
        if character == "{":
            names.append("")
        elif character == "[":
            names.append(0)
        elif character in "}]":
            names.pop()
        elif character == ":":
            names[-1] = last
        elif character == "," and isinstance(names[-1], int):
            names[-1] += 1


# --- Where in an event -----------------------------------------------------------------------------------------------


class _Level:
    """An object or list that a walk is in.

    Attributes:
        index: of the present element; None in an object.
        key: the literal of the present member's key.
        is_secret: whether every string and number in here is to be redacted whole.
        secret_keys: literals of the keys under which that is so.
        renamed: literals of the keys that were redacted, to their new names.
        masks: how often a mask was tried as a new name.
    """

    __slots__ = ("index", "is_secret", "key", "masks", "renamed", "secret_keys")

    def __init__(self, *, is_list: bool, is_secret: bool) -> None:
        self.index = -1 if is_list else None
        self.key = '""'
        self.is_secret = is_secret
        self.secret_keys: set[str] = set()
        self.renamed: dict[str, str] = {}
        self.masks: dict[str, int] = {}

    def inner(self, bracket: str) -> "_Level":
        """What begins with a bracket in the present member or element."""
        is_secret = self.is_secret or (self.index is None and self.key in self.secret_keys)
        return _Level(is_list=bracket == "[", is_secret=is_secret)


class _Walk:
    """A walk through one JSON text that collects what to change in it.

    Args:
        redactor: the rules.
        text: an object or a list.
        hits: where to look, from left to right: at the members that one of these spans touches.
        place: of the text itself if it is JSON inside a string; None for an event.
    """

    def __init__(self, redactor: _Redactor, text: str, hits: Iterable[Span], place: _Place | None = None) -> None:
        self.redactor = redactor
        self.text = text
        self.hits = iter(hits)
        self.place = place
        self.levels = [_Level(is_list=True, is_secret=False)]
        self.edits: list[tuple[int, int, str]] = []
        self.types: list[str] = []
        self.fields: set[_Field] = set()
        self.found_secret_key = False
        self.mark_span = (0, 0)
        self.trusted = 0

    def run(self) -> None:
        """Walk, to the last hit if nothing after it can matter.

        Raises:
            ValueError, LookupError: the text is not JSON.
        """
        text, levels, end = self.text, self.levels, len(self.text)
        no_hit = (end + 1, end + 1)
        position, (hit_start, hit_end) = 0, next(self.hits, no_hit)
        while position < end:
            while hit_end < position:
                hit_start, hit_end = next(self.hits, no_hit)
            if hit_start > end and not self.found_secret_key:
                return
            level = levels[-1]
            if position < hit_start and not level.is_secret and (passed := _MEMBERS.match(text, position, hit_start)):
                position = passed.end()
            match = _TOKEN.match(text, position)
            if match is None:
                raise ValueError("not JSON")
            position = match.end()
            string, colon, _value, inner, number, bracket = match.groups()
            if bracket and bracket in "]}":
                levels.pop()
                continue
            if colon:
                level.key = string
            elif level.index is not None:
                level.index += 1
            if (string or number) and (hit_start < position or level.is_secret):
                self._visit(match, level)
            if inner or bracket:
                levels.append(level.inner(inner or bracket))
        if len(levels) != 1 or levels[0].index != 0:
            raise ValueError("not one JSON value")

    def _visit(self, match: re.Match[str], level: _Level) -> None:
        """Judge the member or element that a step has found, and change it if it is to be redacted here."""
        key, group = (match["string"], "value") if match["colon"] else ("", "string" if match["string"] else "number")
        literal = match[group] or ""
        if key and self.place is None and level is self.levels[1] and _decode(key) == _MARK:
            self._read_mark(match)
        if match.start() < self.trusted:
            return
        verdict = self.redactor.judge(key, literal)
        if verdict.is_secret:
            level.secret_keys.add(key)
            self.found_secret_key = True
        if level.is_secret and literal:
            verdict = _Verdict(verdict.key, self.redactor.hide(literal))
        if verdict is not _HARMLESS:
            self._change(match, group, level, verdict)

    def _change(self, match: re.Match[str], group: str, level: _Level, verdict: _Verdict) -> None:
        here = self._here()
        is_covered = self.redactor.covers(here.path)
        if is_covered and verdict.key:
            self._rename(level, verdict.key.text)
            here = self._here()
            self._edit(
                match.span("string"), level.renamed[level.key], verdict.key.types, here.fields(verdict.key.types)
            )
        if is_covered and verdict.value:
            self._edit(match.span(group), verdict.value.text, verdict.value.types, here.fields(verdict.value.types))
        if verdict.document:
            self._redact_document(match.span(group), verdict.document, here)

    def _rename(self, level: _Level, name: str) -> None:
        """Give the present key a new name that no other key of its object has: two addresses may have the same mask."""
        while level.key not in level.renamed:
            number = level.masks[name] = level.masks.get(name, 0) + 1
            new_name = name if number == 1 else f"{name}#{number}"
            if f"{json.dumps(new_name)}:" not in self.text:
                level.renamed[level.key] = new_name

    def _edit(self, span: Span, text: str, types: Collection[str], fields: Iterable[_Field]) -> None:
        start, end = span
        self.edits.append((start, end, _encode(text, self.text[start:end])))
        self.types += types
        if start >= self.mark_span[1]:
            self.fields.update(fields)

    def _redact_document(self, span: Span, document: str, here: _Place) -> None:
        inner = _Walk(self.redactor, document, _everywhere(document), here)
        inner.run()
        if inner.types:
            self._edit(span, _splice(document, inner.edits), inner.types, inner.fields)

    def _here(self) -> _Place:
        """Where the walk is.

        Raises:
            ValueError: too deep for anybody to have meant it.
        """
        if len(self.levels) > _MAX_DEPTH:
            raise ValueError("too deep")
        path, shown = ([self.place.path], [self.place.shown]) if self.place else ([], [])
        for level in self.levels[1:]:
            name = _decode(level.key) if level.index is None else str(level.index)
            path.append(name)
            shown.append(level.renamed.get(level.key, name))
        return _Place(".".join(path), ".".join(shown))

    def _read_mark(self, match: re.Match[str]) -> None:
        """Note where the event's own ``_redaction`` is; what a redaction has written is not looked at again."""
        start = match.start("value" if match["value"] else "inner") if match["value"] or match["inner"] else match.end()
        value, end = json.JSONDecoder().raw_decode(self.text, start)
        self.mark_span = start, end
        fields = self.redactor.fields_of_mark(value)
        if fields is not None:
            self.fields |= fields
            self.trusted = end

    def marked_text(self) -> str:
        """The event with its findings redacted, ``_redaction`` where it was or at the end."""
        mark = self.redactor.mark(self.fields)
        start, end = self.mark_span
        if end:
            outside = [edit for edit in self.edits if not start <= edit[0] < end]
            return _splice(self.text, [*outside, (start, end, mark)])
        return f'{_splice(self.text, self.edits).rstrip()[:-1]},"{_MARK}":{mark}}}'


def _everywhere(text: str) -> list[Span]:
    return [(0, len(text))]


def _splice(text: str, edits: list[tuple[int, int, str]]) -> str:
    """A text with some of its parts replaced."""
    pieces, copied = [], 0
    for start, end, new in sorted(edits):
        pieces += [text[copied:start], new]
        copied = end
    return "".join([*pieces, text[copied:]])
