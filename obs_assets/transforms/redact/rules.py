"""What a string, a number or a key comes to by the rules of one configuration, wherever in an event it stands."""

import hmac
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import re2

from obs_assets.transforms.detectors import TYPES, Detector, Span
from obs_assets.transforms.detectors.encodings import BASE64, SURROGATE, find_base64, reveal
from obs_assets.transforms.detectors.masks import is_redacted, mask_all
from obs_assets.transforms.detectors.passwords import is_secret_key, is_secret_value
from obs_assets.transforms.redact.config import RedactConfig
from obs_assets.transforms.redact.memory import Remembered

Edit = tuple[int, int, str]
"""A part of a text, from its start to its end, and what takes its place."""

_MAY_HIDE = re.compile(r"[^\x00-\x7f]|[%&\\]")
"""What encodings begin with."""

_BASE64 = re.compile(BASE64)
_MAX_WRAPPINGS = 3
"""Base64 of base64 and so on."""

MAX_ROUNDS = 10
"""What a rule takes out may have hidden a value from another one: look again until nothing is found."""

_TRIGGER_BYTES = 64 << 20


class Redacted(NamedTuple):
    """A string in its redacted form, and the type of each value redacted in it."""

    text: str
    types: tuple[str, ...]


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
        self._triggers = _trigger_set(
            [*(detector.trigger for detector in self.detectors), BASE64]
        )
        self._scanned = None if config.fields_to_scan is None else _paths(config.fields_to_scan)
        self._skipped = _paths(config.fields_to_skip)
        self.covered = Remembered(self.covers)

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
        return Redacted(self._replace(text, "password", mask_all), ("password",))

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
        texts, keys = [text for text, _ in strings], [key for _, key in strings]
        types: list[list[str]] = [[] for _ in strings]
        pending: Sequence[int] = range(len(strings))
        for _ in range(MAX_ROUNDS):
            known = [len(types[which]) for which in pending]
            *fired, may_be_base64 = self._fired(
                [(which, f"{keys[which]}: {texts[which]}") for which in pending]
            )
            for rule, hits in zip(self._rules, fired, strict=True):
                for which in hits:
                    texts[which] = _apply(rule, texts[which], keys[which], types[which])
            for which in pending:
                if _MAY_HIDE.search(texts[which]):
                    texts[which] = self._apply_hidden(texts[which], keys[which], types[which])
            for which in may_be_base64:
                if wrapped < _MAX_WRAPPINGS and _BASE64.search(texts[which]):
                    texts[which] = self._apply_base64(texts[which], types[which], wrapped + 1)
            pending = [
                which
                for which, count in zip(pending, known, strict=True)
                if len(types[which]) > count
            ]
            if not pending:
                break
        return [
            Redacted(text, tuple(found)) if found else None
            for text, found in zip(texts, types, strict=True)
        ]

    def _fired(self, told: Iterable[tuple[int, str]]) -> list[list[int]]:
        """For each trigger, that of base64 the last, in which of the numbered texts it fires."""
        fired: list[list[int]] = [[] for _ in range(len(self._rules) + 2)]
        for which, text in told:
            indexes = self._triggers.Match(
                (text if text.isascii() else SURROGATE.sub("\ufffd", text)).encode()
            )
            if not indexes:
                raise MemoryError("RE2 gave up")
            for index in indexes:
                fired[index].append(which)
        return fired[:-1]

    def _apply_hidden(self, text: str, key: str, types: list[str]) -> str:
        """Run the rules on what a string says when its encodings are undone, such as ``u%40example.com``."""
        revealed = reveal(text)
        if revealed is None:
            return text
        *fired, _ = self._fired([(0, f"{key}: {revealed[0]}")])
        for rule in itertools.compress(self._rules, fired):
            plain, offsets = revealed
            edits = [
                (offsets[start], offsets[end], rule.replace(plain[start:end]))
                for start, end in rule.find(plain, key)
                if not is_redacted(plain[start:end])
            ]
            if edits:
                types += [rule.type] * len(edits)
                text = splice(text, edits)
                revealed = reveal(text)
                if revealed is None:
                    break
        return text

    def _apply_base64(self, text: str, types: list[str], wrapped: int) -> str:
        """Redact base64 whole if there is a value in what it says."""
        edits: list[Edit] = []
        for (start, end), plain in find_base64(text):
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


def _apply(rule: _Rule, text: str, key: str, types: list[str]) -> str:
    """A text after one rule."""
    edits: list[Edit] = []
    for start, end in rule.find(text, key):
        value = text[start:end]
        if not is_redacted(value):
            edits.append((start, end, rule.replace(value)))
            types.append(rule.type)
    return splice(text, edits) if edits else text


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
