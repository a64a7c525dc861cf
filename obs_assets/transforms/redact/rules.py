"""Applies the rules of a configuration to a string, a number or a key, independent of its path in the event."""

import hmac
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from json.encoder import encode_basestring
from typing import Any, NamedTuple

import re2

from obs_assets.transforms.detectors import NUMBERS, TYPES, Detector, Span
from obs_assets.transforms.detectors.base import DIGIT
from obs_assets.transforms.detectors.commands import COMMAND
from obs_assets.transforms.detectors.encodings import (
    BASE64,
    HEX,
    SURROGATE,
    find_base64,
    find_hex,
    reveal,
)
from obs_assets.transforms.detectors.lists import LISTS, find_lists
from obs_assets.transforms.detectors.masks import is_redacted, mask_all
from obs_assets.transforms.detectors.passwords import (
    PASSWORD,
    is_secret_key,
    is_secret_value,
)
from obs_assets.transforms.redact.config import RedactConfig
from obs_assets.transforms.redact.memory import Memory, Remembered

Edit = tuple[int, int, str]
"""Start and end of a part of a text, and the text that replaces it."""

_HIDING = ("%", "&", "\\", "\x1b", "\x00", "=40", "=3")
"""Texts with which an encoding begins, beside characters beyond ASCII."""

_WRAPPED = f"{BASE64}|{HEX}|{LISTS}"
_MAY_BE_WRAPPED = re.compile(_WRAPPED)
_MAX_WRAPPINGS = 3
"""Layers of base64 in base64 that are decoded."""

MAX_ROUNDS = 10
"""Rounds of all rules over a string. A value may appear only after another value beside it was replaced.

Rounds end as soon as no rule finds anything.
"""

_TRIGGER_BYTES = 64 << 20
"""Bytes of memory that RE2 may use for an automaton: with less, wide triggers become slow."""


class Secret(NamedTuple):
    """A secret that is redacted everywhere in its event, also where no name stands before it.

    Attributes:
        value: its text in a string.
        replacement: the text that replaces it.
        type: the type under which it is counted: ``api_key`` or ``password``.
    """

    value: str
    replacement: str
    type: str


class Redacted(NamedTuple):
    """A string in its redacted form.

    Attributes:
        text: the string after redaction.
        types: the type of each redacted value.
        secrets: the redacted values that may occur elsewhere in the event, without a name before them.
    """

    text: str
    types: tuple[str, ...]
    secrets: tuple[Secret, ...] = ()

    def without(self, secrets: Iterable[Secret]) -> "Redacted":
        """The string after these secrets of its event are redacted too."""
        text, types = self.text, self.types
        for value, replacement, type_ in secrets:
            if count := text.count(value):
                text = text.replace(value, replacement)
                types += (type_,) * count
        return self._replace(text=text, types=types)


_SECRET_TYPES = frozenset(("api_key", "password"))
_MIN_SECRET = 10
"""Characters of a secret that is searched for without its name: a shorter text may be a word."""


ALL_GROUPS = -1
"""The bits of all groups of triggers (`automata`): any of them may fire."""


class _Found:
    """A string while the rules are applied to it.

    Attributes:
        text: the string after the rules applied so far.
        key: the key of the string.
        groups: a bit for each group of triggers that may fire in the text.
        types: the type of each value found so far.
        secrets: the values found that may occur elsewhere in the event.
    """

    __slots__ = ("groups", "key", "secrets", "text", "types")

    def __init__(self, text: str, key: str, groups: int) -> None:
        self.text = text
        self.key = key
        self.groups = groups
        self.types: list[str] = []
        self.secrets: list[Secret] = []

    @property
    def string(self) -> tuple[str, str]:
        """Key and text: the key of the memory of results."""
        return self.key, self.text


class Key(NamedTuple):
    """A key after redaction.

    Attributes:
        name: its text after redaction. The rules see it as the context of the value.
        redacted: the same text with the types of its values; None if nothing was redacted.
        is_secret: whether every string and number below the key is redacted as a whole.
    """

    name: str
    redacted: Redacted | None
    is_secret: bool


class _Rule(NamedTuple):
    """A detector, with the function that gives the replacement of a value."""

    type: str
    find: Callable[[str, str], Iterator[Span]]
    replace: Callable[[str], str]


class Rules:
    """The compiled rules of a configuration.

    Args:
        config: the ``redact`` block of the pipeline.
        hash_key: the key of ``hash`` tokens; needed only for the mode ``hash``.
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
            (
                1 << number,
                _trigger_set([triggers[position] for position in together]),
                [*together, always],
            )
            for number, together in enumerate(([*others, always - 1], *rest))
        ]
        self._scanned = None if config.fields_to_scan is None else _paths(config.fields_to_scan)
        self._skipped = _paths(config.fields_to_skip)
        self.covered = Remembered(self.covers)
        self._clean: Memory[tuple[str, str], None] = Memory()
        """Strings as (key, text) in which no rule finds anything. After masking, many strings are equal."""

    def key(self, name: str) -> Key:
        """Redact a key, and judge whether it names a secret."""
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
        """A string or number under the key of a secret, redacted as a whole; None if it cannot be a secret."""
        if not is_secret_value(key, text, is_number=is_number):
            return None
        replacement = self._replace(text, "password", mask_all)
        return Redacted(replacement, ("password",), _secrets([(text, replacement)], "password"))

    def string(self, text: str, key: str = "") -> Redacted | None:
        """Redact the values in a string, also encoded values; None if the string has no values.

        Args:
            text: the string, for example ``mail bob.smith@example.com now``.
            key: the key of the string, for example ``message``; empty for an element of a list.
        """
        return self.strings([(text, key)])[0]

    def strings(
        self,
        strings: Sequence[tuple[str, str]],
        groups: Iterable[int] = itertools.repeat(ALL_GROUPS),
        wrapped: int = 0,
    ) -> list[Redacted | None]:
        """Redact many strings, each by itself, with the same results as `string`.

        Each rule runs over all strings before the next rule, so that its code stays in the processor's cache.

        Args:
            strings: (text, key) of each string.
            groups: for each string, a bit for each group of triggers that fires in its raw text.
            wrapped: number of layers of base64 around the strings.
        """
        found = [
            _Found(text, key, fire) for (text, key), fire in zip(strings, groups, strict=False)
        ]
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
                    one.groups = ALL_GROUPS
                    changed.append(one)
            pending = changed
            if not pending:
                break
        return [
            Redacted(one.text, tuple(one.types), tuple(one.secrets)) if one.types else None
            for one in found
        ]

    def _apply_all(self, found: Sequence["_Found"], wrapped: int) -> None:
        """Apply each rule once to the strings in which its trigger fires."""
        *fired, may_be_wrapped = self._fired(
            (number, f"{one.key}: {one.text}", one.groups) for number, one in enumerate(found)
        )
        for one in found:
            if _may_hide(one.text):
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

    def _fired(self, told: Iterable[tuple[int, str, int]]) -> list[list[int]]:
        """For each trigger, the numbers of the texts in which it fires. The trigger of base64 is the last.

        Triggers are made for JSON, in which a quote within a string has an escape.

        Args:
            told: number, text, and the bits of the groups of triggers that may fire in it.
        """
        fired: list[list[int]] = [[] for _ in range(len(self._rules) + 2)]
        for which, text, groups in told:
            whole = text if text.isascii() else SURROGATE.sub("\ufffd", text)
            encoded = encode_basestring(whole)[1:-1].encode()
            for group, automaton, positions in self._automata:
                if not groups & group:
                    continue
                found = automaton.Match(encoded)
                if not found:
                    raise MemoryError("RE2 gave up")
                for index in found:
                    fired[positions[index]].append(which)
        return fired[:-1]

    def _apply_hidden(
        self, text: str, key: str, types: list[str], secrets: list[Secret]
    ) -> str:
        """Apply the rules to a string with its encodings undone, such as ``u%40example.com``."""
        revealed = reveal(text)
        if revealed is None:
            return text
        *fired, _ = self._fired([(0, f"{key}: {revealed.text}", ALL_GROUPS)])
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
        """Redact base64, hexadecimal text and lists of bytes as a whole if the decoded text has a value in it."""
        edits: list[Edit] = []
        for (start, end), plain in (*find_base64(text), *find_hex(text), *find_lists(text)):
            redacted = self.strings([(plain, "")], wrapped=wrapped)[0]
            if redacted:
                types += redacted.types
                edits.append((start, end, self._replace(plain, redacted.types[0], mask_all)))
        return splice(text, edits)

    def _replacer(self, detector: Detector) -> Callable[[str], str]:
        """The function that gives the replacement of a value of this detector."""
        if replacement := detector.replacement:
            return lambda _: replacement
        if self._mode_of(detector.type) == "mask":
            return detector.mask
        return lambda value: self._replace(value, detector.type, detector.mask)

    def _mode_of(self, type_: str) -> str:
        return self.modes.get(type_, self.mode)

    def _replace(self, value: str, type_: str, mask: Callable[[str], str]) -> str:
        """The replacement of a value in the mode of its type: a mask, ``[REDACTED]`` or a keyed hash."""
        mode = self._mode_of(type_)
        if mode == "mask":
            return mask(value)
        if mode == "remove" or self.hash_key is None:
            return "[REDACTED]"
        message = f"{type_}:{value}".encode("utf-8", "surrogatepass")
        return f"[REDACTED:{hmac.digest(self.hash_key, message, 'sha256').hex()[:32]}]"


def _may_hide(text: str) -> bool:
    """Whether a text may hold an encoding. Seven searches for plain texts are faster than one for a pattern."""
    if not text.isascii():
        return True
    for begin in _HIDING:  # noqa: SIM110 - `any` of a generator takes twice the time
        if begin in text:
            return True
    return False


def _again(text: str, types: list[str], secrets: list[Secret]) -> str:
    """Redact further occurrences of the secrets that were found in a text."""
    redacted = Redacted(text, ()).without(secrets)
    types += redacted.types
    return redacted.text


def _apply(rule: _Rule, text: str, key: str, types: list[str], secrets: list[Secret]) -> str:
    """Apply a rule to a text, and return the new text."""
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
    """The values that can be recognized elsewhere without a name: at least `_MIN_SECRET` characters and a digit.

    Args:
        replaced: (value, replacement) of each redacted value.
        type_: their type.
    """
    if type_ not in _SECRET_TYPES:
        return ()
    return tuple(
        Secret(value, new, type_)
        for value, new in replaced
        if len(value) >= _MIN_SECRET and DIGIT.search(value)
    )


def automata(detectors: Sequence[Detector]) -> list[list[int]]:
    """Indexes of the detectors whose triggers share an automaton of RE2.

    The groups are, in this order: other triggers, names of secrets, numbers. A single automaton for all triggers would
    have many more states, and RE2 would build most of them again for each event.
    """
    groups: dict[str, list[int]] = {"others": [], "names": [], "numbers": []}
    for position, detector in enumerate(detectors):
        if detector in NUMBERS:
            groups["numbers"].append(position)
        elif detector in (PASSWORD, COMMAND):
            groups["names"].append(position)
        else:
            groups["others"].append(position)
    return list(groups.values())


def any_of(triggers: Iterable[str]) -> str:
    """RE2 pattern that matches any of these triggers."""
    return "|".join(f"(?:{trigger})" for trigger in triggers)


def compiled(trigger: str) -> Any:
    """Compile a trigger in RE2, with enough memory for wide triggers to keep their speed."""
    return re2.compile(trigger, _options())


def splice(text: str, edits: list[Edit]) -> str:
    """Replace parts of a text, and return the new text."""
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
    """Compile all triggers into a set, with a last trigger that always fires.

    When RE2 runs out of memory, it returns no match and no error; then the last trigger is missing from the result.
    """
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
    """RE2 pattern for the paths that any of the globs covers; a path ends with a dot here.

    Any text may be a key, so the match has to take linear time.
    """
    return re2.compile("|".join(f"(?:{_path(glob)}(?s:.*))" for glob in globs) or r"\z.")


def _path(glob: str) -> str:
    """RE2 pattern for a glob of paths, such as ``data.*.build``; ``**`` is any number of names."""
    return "".join(
        r"(?:[^.]*\.)*"
        if segment == "**"
        else r"[^.]*".join(map(re2.escape, segment.split("*"))) + r"\."
        for segment in glob.split(".")
    )
