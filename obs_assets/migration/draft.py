"""A pipeline file that is being written: blocks, and comments about everything without a counterpart."""

import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from obs_assets.delivery.kinds import KINDS
from obs_assets.errors import ConfigurationError
from obs_assets.hourly import pipeline

WIDTH = 100
"""Columns of a line of comment."""

_WILD = re.compile(r"[*?\[{]")

_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}")
"""``${NAME}`` and ``${NAME:-default}``, in both products."""

_TEMPLATE = re.compile(r"\{\{|%|\$")
"""Beginnings of parts that the other product fills in for each event."""

_LEVEL_FIELDS = frozenset({"level", "severity", "loglevel", "log_level", "log.level"})

_TYPE_FIELDS = frozenset({"type", "event_type", "event"})

BLOCKS = ("source", "enrich", "filter", "sample", "destinations")
"""Blocks of a pipeline file, in their order."""


@dataclass
class Draft:
    """A pipeline file that is being written.

    Attributes:
        origin: name of the configuration that is read, for the first comment.
        blocks: block → its options; ``destinations`` is kept apart.
        destinations: options of each destination.
        comments: block → sentences that stand above it.
        lacking: sentences about parts without a counterpart.
    """

    origin: str
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    destinations: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[str, list[str]] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)

    def note(self, block: str, sentence: str) -> None:
        """Put a sentence above a block, once."""
        sentences = self.comments.setdefault(block, [])
        if sentence not in sentences:
            sentences.append(sentence)

    def lack(self, sentence: str) -> None:
        """Say that a part has no counterpart."""
        if sentence not in self.lacking:
            self.lacking.append(sentence)

    def lack_options(self, part: str, options: "Options") -> None:
        """Say which options of a part were not used. Their values are left out: they can be secrets."""
        if options.unused:
            self.lack(f"{part}: the options {', '.join(options.unused)}")

    def set(self, block: str, **options: Any) -> None:
        """Set options of a block; lists grow."""
        values = self.blocks.setdefault(block, {})
        for name, value in options.items():
            if isinstance(value, list):
                values[name] = [*values.get(name, []), *value]
            else:
                values[name] = value

    # -- the parts that both products have ---------------------------------------------------------

    def read_files(self, patterns: Iterable[str]) -> None:
        """Read the files of these patterns: a folder, and patterns of names."""
        found = [str(substituted(pattern)) for pattern in patterns]
        if not found:
            return
        # A path that is a variable as a whole has no folder that is known here.
        folders = [_folder(pattern) for pattern in found if "/" in pattern]
        before = self.blocks.get("source", {}).get("events_dir")
        folders += [before] if before else []
        self.set("source", events_dir=_common(folders))
        names = {PurePosixPath(pattern).name for pattern in found}
        included = [name for name in sorted(names) if name != "**" and "{{" not in name]
        if included:
            self.set("source", include=included)
        self.note(
            "source",
            f"Files were read from {', '.join(found)}. All folders below events_dir are read. A line "
            "that is not JSON becomes a dead letter: `obs inspect FILE` shows it before anything lands; "
            "for text formats set source.format.",
        )

    def drop(self, key: str, pattern: str) -> None:
        """Drop events whose field has this value; the pattern is a regular expression."""
        words = words_of(pattern)
        if words and key.lower() in _LEVEL_FIELDS:
            self.set("filter", drop_levels=[word.lower() for word in words])
        elif words and key.lower() in _TYPE_FIELDS:
            self.set("filter", drop_event_types=words)
        else:
            self.set("filter", drop_patterns=[pattern])
            self.note(
                "filter", f"The pattern for {key} is searched in every text value of an event."
            )

    def keep(self, key: str, pattern: str) -> None:
        """Keep nothing but events whose field has this value."""
        words = words_of(pattern)
        self.set("filter", filter_mode="allowlist")
        if words and key.lower() in _TYPE_FIELDS:
            self.set("filter", keep_event_types=words)
        else:
            self.set("filter", keep_patterns=[pattern])
            self.note(
                "filter", f"The pattern for {key} is searched in every text value of an event."
            )

    def send(self, kind: str, comment: str = "", **options: Any) -> None:
        """Add a destination; an option that is empty or not allowed is left out."""
        given = {name: value for name, value in options.items() if value not in (None, "")}
        block = {"type": kind, **given}
        for name in _refused(block):
            self.note("destinations", f"{kind}: {name} has a value that is not allowed here.")
            del block[name]
        taken = {each.get("name", each["type"]) for each in self.destinations}
        if kind in taken:
            block["name"] = f"{kind}_{len(self.destinations) + 1}"
        self.destinations.append(block)
        if comment:
            self.note("destinations", comment)

    def send_webhook(self, source: str, url: str, **options: Any) -> None:
        """Add a webhook. Its address is a secret, so that it comes from a variable of its own.

        Args:
            source: the part of the configuration that it comes from.
            url: its address.
            options: further options of the webhook.
        """
        before = [block for block in self.destinations if block["type"] == "webhook"]
        variable = f"WEBHOOK_URL_{len(before) + 1}" if before else "WEBHOOK_URL"
        self.send(
            "webhook",
            f"{source}: set {variable} ({address(url)} and its path). A webhook gets errors, or the "
            "events of its rules (docs/alerts.md). Its secrets come from WEBHOOK_AUTH_TOKEN and other "
            "variables.",
            url=f"{{{{ env.{variable} }}}}",
            payload_format="array",
            **options,
        )

    # -- the file ------------------------------------------------------------------------------------

    def text(self, prefix: str) -> str:
        """The pipeline file.

        Args:
            prefix: line with the option ``asset_prefix``, or a comment instead.

        Raises:
            ConfigurationError: a block has values that are not allowed.
        """
        if "filter" in self.blocks:
            self.set("filter", drop_low_value=False)
        lines = [
            *_comment(f"Written by `obs import` from {self.origin}. `obs validate` checks it."),
            f"type: {pipeline.COMPONENT_TYPE}",
            "attributes:",
            prefix,
        ]
        blocks: dict[str, Any] = {**self.blocks, "destinations": self.destinations}
        for name in BLOCKS:
            sentences = self.comments.get(name, [])
            if sentences or blocks.get(name):
                lines.append("")
            for sentence in sentences:
                lines += _comment(sentence, "  ")
            if blocks.get(name):
                lines += _yaml({name: blocks[name]})
        if not self.destinations:
            lines += ["", *_comment("No destination has a counterpart: add one.", "  ")]
            lines += _yaml({"destinations": []})
        if self.lacking:
            lines += ["", *_comment("Without a counterpart here:")]
            for sentence in self.lacking:
                lines += _comment(f"- {sentence}")
        return "\n".join(lines) + "\n"


def words_of(pattern: str) -> list[str]:
    """The words of a pattern that is a list of whole words, such as ``^(debug|trace)$``; else empty."""
    found = re.fullmatch(r"\^?\(?(?:\?:|\?i\))?([\w-]+(?:\|[\w-]+)*)\)?\$?", pattern)
    if found is None or not (pattern.startswith("^") and pattern.endswith("$")):
        return []
    return found[1].split("|")


def substituted(value: Any) -> Any:
    """A text with ``{{ env.NAME }}`` in place of ``${NAME}``; other values as they are."""
    if not isinstance(value, str):
        return value

    def named(found: re.Match[str]) -> str:
        if found[2] is None:
            return f"{{{{ env.{found[1]} }}}}"
        return f"{{{{ env('{found[1]}', '{found[2]}') }}}}"

    return _VARIABLE.sub(named, value)


def fixed(value: Any) -> str:
    """The beginning of a text, up to the first part that is filled in for each event."""
    text = str(value or "")
    found = _TEMPLATE.search(text)
    return (text[: found.start()] if found else text).strip("/-_. ")


def folder_of(value: Any) -> str:
    """The folders of a key, up to the first that is filled in for each event."""
    text = str(value or "")
    found = _TEMPLATE.search(text)
    if found:
        text = text[: found.start()].rpartition("/")[0]
    return text.strip("/")


class Options(Mapping[str, Any]):
    """Options of a part, which note which of them were used.

    Args:
        values: name → value.
        of_course: options that need no comment.
    """

    def __init__(self, values: Mapping[str, Any], of_course: Iterable[str] = ()) -> None:
        self._values = {str(name): value for name, value in values.items()}
        self._used = set(of_course)

    def __getitem__(self, name: str) -> Any:
        self._used.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def unused(self) -> list[str]:
        """Names of the options that were not used, sorted."""
        return sorted(set(self._values) - self._used)


def truth(value: Any) -> bool:
    """Whether an option is on, in the words of both products."""
    return str(value).lower() in {"true", "on", "yes", "1"}


def address(value: Any) -> str:
    """Scheme, host and port of an address. Its user, password, path and query can be secrets.

    >>> address("https://bob:pw@example.com:9200/services/T0/x1?token=x2")
    'https://example.com:9200'
    """
    text = str(value or "")
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "http", text
    # A password can hold the characters that end a host: an `@` behind them counts too.
    host = _END_OF_HOST.split(rest.rpartition("@")[2])[0]
    return f"{scheme}://{host}"


_END_OF_HOST = re.compile(r"[/?#\\]")


def _common(folders: list[str]) -> str:
    """The folder above all of them."""
    if not folders:
        return "{{ env.OBS_EVENTS_DIR }}"
    if len({folder.startswith("/") for folder in folders}) > 1:
        # A relative path, or one that begins with a variable, has no known place.
        return folders[0]
    return os.path.commonpath(folders)


def _folder(pattern: str) -> str:
    """The folder above the first part with a wildcard, or above the file."""
    parts = PurePosixPath(pattern).parts
    wild = [
        number for number, part in enumerate(parts) if _WILD.search(part) and "{{" not in part
    ]
    end = wild[0] if wild else len(parts) - 1
    return str(PurePosixPath(*parts[:end])) if end else "."


def _refused(block: Mapping[str, Any]) -> list[str]:
    """Options of a destination that are not allowed."""
    config = next(kind.config for kind in KINDS if kind.name == block["type"])
    try:
        config.model_validate(pipeline.render(block, {}))
    except (ValidationError, ConfigurationError) as error:
        if isinstance(error, ConfigurationError):
            return [name for name in block if name != "type"]
        return sorted({str(each["loc"][0]) for each in error.errors() if each["loc"]})
    return []


def _comment(sentence: str, indent: str = "") -> list[str]:
    # One line each: a line break in a value of the other file must not end the comment.
    flat = " ".join(sentence.split())
    return textwrap.wrap(
        flat,
        WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}#   " if sentence.startswith("- ") else f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _yaml(values: Mapping[str, Any]) -> list[str]:
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=WIDTH)
    return [f"  {line}" for line in text.splitlines()]
