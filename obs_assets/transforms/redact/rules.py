"""What a string, a number or a key comes to by the rules of one configuration, wherever in an event it stands."""

import hmac
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import re2

from obs_assets.transforms.detectors import NUMBERS, TYPES, Detector, Span
from obs_assets.transforms.detectors.base import DIGIT
from obs_assets.transforms.detectors.encodings import (
    BASE64,
    HEX,
    SURROGATE,
    find_base64,
    find_hex,
    reveal,
)
from obs_assets.transforms.detectors.masks import is_redacted, mask_all
from obs_assets.transforms.detectors.passwords import (
    PASSWORD,
    is_secret_key,
    is_secret_value,
)
from obs_assets.transforms.redact.config import RedactConfig
from obs_assets.transforms.redact.memory import Memory, Remembered

Edit = tuple[int, int, str]
"""A part of a text, from its start to its end, and what takes its place."""

_MAY_HIDE = re.compile(r"[^\x00-\x7f]|[%&\\\x1b]|=(?:40|3[dD])")
"""What encodings begin with."""

_WRAPPED = f"{BASE64}|{HEX}"
_MAY_BE_WRAPPED = re.compile(_WRAPPED)
_MAX_WRAPPINGS = 3
"""Base64 of base64 and so on."""

MAX_ROUNDS = 10
"""What a rule takes out may have hidden a value from another one: look again until nothing is found."""

_TRIGGER_BYTES = 64 << 20


class Secret(NamedTuple):
    """A secret that goes wherever else it stands in its event.

    Attributes:
        value: as it stands in a string.
        replacement: left in its place.
        type: what it is counted as.
    """

    value: str
    replacement: str
    type: str


class Redacted(NamedTuple):
    """A string in its redacted form.

    Attributes:
        text: the string.
        types: of each value redacted in it.
        secrets: those of the values that may stand elsewhere in the event, without a name.
    """

    text: str
    types: tuple[str, ...]
    secrets: tuple[Secret, ...] = ()

    def without(self, secrets: Iterable[Secret]) -> "Redacted":
        """The string with secrets of its event redacted too."""
        text, types = self.text, self.types
        for value, replacement, type_ in secrets:
            if count := text.count(value):
                text = text.replace(value, replacement)
                types += (type_,) * count
        return self._replace(text=text, types=types)


_SECRET_TYPES = frozenset(("api_key", "password"))
_MIN_SECRET = 10
"""Characters of a secret that is looked for without its name: a shorter one may be a word."""


class _Found:
    """A string under its rules.

    Attributes:
        text: as the rules so far have left it.
        key: of the string.
        types: of each value found.
        secrets: those of the values that may stand elsewhere in the event.
    """

    __slots__ = ("key", "secrets", "text", "types")

    def __init__(self, text: str, key: str) -> None:
        self.text = text
        self.key = key
        self.types: list[str] = []
        self.secrets: list[Secret] = []

    @property
    def string(self) -> tuple[str, str]:
        """Key and text, by which outcomes are remembered."""
        return self.key, self.text


class Key(NamedTuple):
    """What a key comes to.

    Attributes:
        name: its text after redaction, which is the context of its value.
        redacted: the same with the types, if that is a change.
        is_secret: whether all that stands under it is to be redacted whole.
    """

    name: str
    redacted: Redacted | None
    is_secret: bool


class _Rule(NamedTuple):
    """A detector, and what it leaves in a value's place."""

    type: str
    find: Callable[[str, str], Iterator[Span]]
    replace: Callable[[str], str]


class Rules:
    """The rules of one configuration, compiled.

    Args:
        config: what, where and how.
        hash_key: the key of ``hash`` tokens.
    """

    def __init__(self, config: RedactConfig, hash_key: bytes | None) -> None:
        self.mode = config.mode
        self.modes: dict[str, str] = {
            type_: mode for type_, mode in config.modes.items() if mode != config.mode
        }
        self.hash_key = hash_key
        self.detectors = config.detectors()
        self.hides_secrets = config.detects("password")
        self.known_types = TYPES.union(detector.type for detector in self.detectors)
        self._rules = [
            _Rule(detector.type, detector.find, self._replacer(detector))
            for detector in self.detectors
        ]
        triggers = [*(detector.trigger for detector in self.detectors), _WRAPPED]
        others, *rest = automata(self.detectors)
        always = len(triggers)
        self._automata = [
            (_trigger_set([triggers[position] for position in together]), [*together, always])
            for together in ([*others, always - 1], *rest)
        ]
        self._scanned = None if config.fields_to_scan is None else _paths(config.fields_to_scan)
        self._skipped = _paths(config.fields_to_skip)
        self.covered = Remembered(self.covers)
        self._clean: Memory[tuple[str, str], None] = Memory()
        """Strings, as (key, text), in which no rule finds anything: masked, many are equal."""

    def key(self, name: str) -> Key:
        """What a key comes to."""
        redacted = self.string(name)
        shown = redacted.text if redacted else name
        return Key(
            shown,
            redacted,
            self.hides_secrets and (is_secret_key(name) or is_secret_key(shown)),
        )

    def covers(self, path: str) -> bool:
        """Whether a path is to be redacted."""
        dotted = SURROGATE.sub("\ufffd", path) + "."
        is_scanned = self._scanned is None or self._scanned.fullmatch(dotted) is not None
        return is_scanned and self._skipped.fullmatch(dotted) is None

    def secret(self, key: str, text: str, *, is_number: bool) -> Redacted | None:
        """A string or number under a secret's key, redacted whole; None if it cannot be one."""
        if not is_secret_value(key, text, is_number=is_number):
            return None
        replacement = self._replace(text, "password", mask_all)
        return Redacted(replacement, ("password",), _secrets([(text, replacement)], "password"))

    def string(self, text: str, key: str = "") -> Redacted | None:
        """A string with its values redacted, those that are encoded too; None if there are none.

        Args:
            text: the string.
            key: what it stands under.
        """
        return self.strings([(text, key)])[0]

    def strings(
        self, strings: Sequence[tuple[str, str]], wrapped: int = 0
    ) -> list[Redacted | None]:
        """Many strings, each with its key and by itself, as `string` does one.

        One rule after the other goes over all of them: a rule at work stays in the processor's cache.

        Args:
            strings: (text, key) of each.
            wrapped: in how many layers of base64 they were found.
        """
        found = [_Found(text, key) for text, key in strings]
        pending = found
        for number in range(MAX_ROUNDS):
            known = [len(one.types) for one in pending]
            self._apply_all(pending, wrapped)
            changed: list[_Found] = []
            for one, count in zip(pending, known, strict=True):
                if len(one.types) == count:
                    if number and not wrapped:
                        self._clean.remember(one.string, None, len(one.text))
                elif one.string not in self._clean:
                    changed.append(one)
            pending = changed
            if not pending:
                break
        return [
            Redacted(one.text, tuple(one.types), tuple(one.secrets)) if one.types else None
            for one in found
        ]

    def _apply_all(self, found: Sequence["_Found"], wrapped: int) -> None:
        """Apply each rule once to strings in which its trigger fires."""
        *fired, may_be_wrapped = self._fired(
            (number, f"{one.key}: {one.text}") for number, one in enumerate(found)
        )
        for one in found:
            if _MAY_HIDE.search(one.text):
                one.text = self._apply_hidden(one.text, one.key, one.types, one.secrets)
        for rule, hits in zip(self._rules, fired, strict=True):
            for number in hits:
                one = found[number]
                one.text = _apply(rule, one.text, one.key, one.types, one.secrets)
        for number in may_be_wrapped:
            one = found[number]
            if wrapped < _MAX_WRAPPINGS and _MAY_BE_WRAPPED.search(one.text):
                one.text = self._apply_wrapped(one.text, one.types, wrapped + 1)
        for one in found:
            if one.secrets:
                one.text = _again(one.text, one.types, one.secrets)

    def _fired(self, told: Iterable[tuple[int, str]]) -> list[list[int]]:
        """For each trigger, that of base64 the last, in which of the numbered texts it fires."""
        fired: list[list[int]] = [[] for _ in range(len(self._rules) + 2)]
        for which, text in told:
            encoded = (text if text.isascii() else SURROGATE.sub("\ufffd", text)).encode()
            for automaton, positions in self._automata:
                found = automaton.Match(encoded)
                if not found:
                    raise MemoryError("RE2 gave up")
                for index in found:
                    fired[positions[index]].append(which)
        return fired[:-1]

    def _apply_hidden(
        self, text: str, key: str, types: list[str], secrets: list[Secret]
    ) -> str:
        """Run the rules on what a string says when its encodings are undone, such as ``u%40example.com``."""
        revealed = reveal(text)
        if revealed is None:
            return text
        *fired, _ = self._fired([(0, f"{key}: {revealed.text}")])
        for rule in itertools.compress(self._rules, fired):
            plain = revealed.text
            edits = [
                (*revealed.span(start, end), rule.replace(plain[start:end]))
                for start, end in rule.find(plain, key)
                if not is_redacted(plain[start:end])
            ]
            if edits:
                types += [rule.type] * len(edits)
                secrets += _secrets(
                    ((text[start:end], new) for start, end, new in edits), rule.type
                )
                text = splice(text, edits)
                revealed = reveal(text)
                if revealed is None:
                    break
        return text

    def _apply_wrapped(self, text: str, types: list[str], wrapped: int) -> str:
        """Redact base64 and hexadecimal text whole if there is a value in what it says."""
        edits: list[Edit] = []
        for (start, end), plain in (*find_base64(text), *find_hex(text)):
            redacted = self.strings([(plain, "")], wrapped)[0]
            if redacted:
                types += redacted.types
                edits.append((start, end, self._replace(plain, redacted.types[0], mask_all)))
        return splice(text, edits)

    def _replacer(self, detector: Detector) -> Callable[[str], str]:
        """What a detector leaves in the place of a value."""
        if replacement := detector.replacement:
            return lambda _: replacement
        if self._mode_of(detector.type) == "mask":
            return detector.mask
        return lambda value: self._replace(value, detector.type, detector.mask)

    def _mode_of(self, type_: str) -> str:
        return self.modes.get(type_, self.mode)

    def _replace(self, value: str, type_: str, mask: Callable[[str], str]) -> str:
        mode = self._mode_of(type_)
        if mode == "mask":
            return mask(value)
        if mode == "remove" or self.hash_key is None:
            return "[REDACTED]"
        message = f"{type_}:{value}".encode("utf-8", "surrogatepass")
        return f"[REDACTED:{hmac.digest(self.hash_key, message, 'sha256').hex()[:32]}]"


def _again(text: str, types: list[str], secrets: list[Secret]) -> str:
    """A text without the secrets that were found in it and stand in it once more."""
    redacted = Redacted(text, ()).without(secrets)
    types += redacted.types
    return redacted.text


def _apply(rule: _Rule, text: str, key: str, types: list[str], secrets: list[Secret]) -> str:
    """A text after one rule."""
    edits: list[Edit] = []
    for start, end in rule.find(text, key):
        value = text[start:end]
        if not is_redacted(value):
            edits.append((start, end, rule.replace(value)))
            types.append(rule.type)
    if not edits:
        return text
    if rule.type in _SECRET_TYPES:
        secrets += _secrets(((text[start:end], new) for start, end, new in edits), rule.type)
    return splice(text, edits)


def _secrets(replaced: Iterable[tuple[str, str]], type_: str) -> tuple[Secret, ...]:
    """Those of some values and what took their place that are long enough to be known again without a name."""
    if type_ not in _SECRET_TYPES:
        return ()
    return tuple(
        Secret(value, new, type_)
        for value, new in replaced
        if len(value) >= _MIN_SECRET and DIGIT.search(value)
    )


def automata(detectors: Sequence[Detector]) -> list[list[int]]:
    """Positions of detectors whose triggers share an automaton of RE2: of names, of numbers, all others first.

    One automaton for all of them would have many more states, most of them made anew for each event.
    """
    groups: dict[str, list[int]] = {"others": [], "names": [], "numbers": []}
    for position, detector in enumerate(detectors):
        if detector in NUMBERS:
            groups["numbers"].append(position)
        elif detector is PASSWORD:
            groups["names"].append(position)
        else:
            groups["others"].append(position)
    return list(groups.values())


def any_of(triggers: Iterable[str]) -> str:
    """RE2: one of these."""
    return "|".join(f"(?:{trigger})" for trigger in triggers)


def compiled(trigger: str) -> Any:
    """A trigger in RE2, with memory enough that wide ones keep their speed."""
    return re2.compile(trigger, _options())


def splice(text: str, edits: list[Edit]) -> str:
    """A text with some of its parts replaced."""
    if len(edits) == 1:
        ((start, end, new),) = edits
        return f"{text[:start]}{new}{text[end:]}"
    pieces: list[str] = []
    copied = 0
    for start, end, new in sorted(edits):
        pieces += text[copied:start], new
        copied = end
    pieces.append(text[copied:])
    return "".join(pieces)


def _trigger_set(triggers: list[str]) -> Any:
    """All triggers at once, and behind them one that always fires: RE2 says nothing at all when out of memory."""
    fires = re2.Set.SearchSet(_options())
    for trigger in (*triggers, "^"):
        fires.Add(trigger)
    fires.Compile()
    return fires


def _options() -> Any:
    options = re2.Options()
    options.max_mem = _TRIGGER_BYTES
    options.log_errors = False
    return options


def _paths(globs: tuple[str, ...]) -> Any:
    """RE2 for paths, a dot at their end, that one of the globs covers; linear, since keys are anybody's text."""
    return re2.compile("|".join(f"(?:{_path(glob)}(?s:.*))" for glob in globs) or r"\z.")


def _path(glob: str) -> str:
    return "".join(
        r"(?:[^.]*\.)*"
        if segment == "**"
        else r"[^.]*".join(map(re2.escape, segment.split("*"))) + r"\."
        for segment in glob.split(".")
    )
