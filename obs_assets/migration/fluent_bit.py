"""Fluent Bit's configuration (classic or YAML) → a pipeline file."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from obs_assets.errors import ConfigurationError
from obs_assets.migration.draft import (
    Draft,
    Options,
    address,
    fixed,
    folder_of,
    substituted,
    truth,
)

RECEIVED = frozenset({"forward", "http", "opentelemetry", "splunk", "elasticsearch"})
"""Inputs that take events over the network; `obs receive` takes all of these but ``forward``."""

_TEXT_FORMATS = {
    "cri": "cri",
    "docker": "docker",
    "syslog-rfc3164": "syslog",
    "syslog-rfc5424": "syslog",
}
"""Parser → the format that a source names for the same lines."""

_OF_COURSE = ("name", "match", "match_regex", "tag", "alias", "log_level")

_MOST_INCLUDES = 10

_SECTION = re.compile(r"\[(\w+)\]\s*$")


@dataclass
class Section:
    """A section of a configuration.

    Attributes:
        kind: ``input``, ``filter``, ``output``, ``parser`` and so on, in lower case.
        pairs: name in lower case and value of each line; a name can stand there more than once.
    """

    kind: str
    pairs: list[tuple[str, Any]] = field(default_factory=list)

    @cached_property
    def options(self) -> Options:
        """The last value of each name."""
        return Options(dict(self.pairs), _OF_COURSE)

    @property
    def plugin(self) -> str:
        """Name of the input, filter or output."""
        return str(self.options.get("name", "")).lower()

    def __str__(self) -> str:
        return f"{self.kind} {self.plugin}"

    def all(self, *names: str) -> list[tuple[str, str]]:
        """The lines with one of these names."""
        return [(name, str(value)) for name, value in self.pairs if name in names]


def read_fluent_bit(path: Path) -> Draft:
    """A pipeline file from a configuration of Fluent Bit.

    Raises:
        ConfigurationError: the file cannot be read; the message says why.
    """
    draft = Draft(f"Fluent Bit's {path.name}")
    read = _of_yaml if path.suffix in {".yaml", ".yml"} else _of_classic
    sections = list(read(path, draft))
    if not {"input", "output"} & {section.kind for section in sections}:
        raise ConfigurationError(
            f"{path}: a configuration of Fluent Bit has inputs and outputs"
        )
    parsers = dict(_parsers(path, sections, draft))
    for section in sections:
        match section.kind:
            case "input":
                _input(draft, section, parsers)
            case "filter":
                _do(_FILTERS, draft, section)
            case "output":
                _do(_OUTPUTS, draft, section)
            case "parser" | "multiline_parser" | "service" | "env":
                continue
            case kind:
                draft.lack(f"section {kind}")
    draft.lacking.sort()
    return draft


# -- reading -----------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not UTF-8") from None


def _of_classic(path: Path, draft: Draft, depth: int = 0) -> Iterator[Section]:
    """The sections of a file with lines ``[SECTION]`` and ``Name value``, and of its ``@INCLUDE``s."""
    variables: dict[str, str] = {}
    section: Section | None = None
    for number, raw in enumerate(_text(path).splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, _, value = line.partition(" ") if " " in line else line.partition("\t")
        value = value.strip()
        for variable, text in variables.items():
            value = value.replace(f"${{{variable}}}", text)
        found = _SECTION.fullmatch(line)
        if found:
            if section:
                yield section
            section = Section(found[1].lower())
        elif name.lower() == "@set":
            variable, _, text = value.partition("=")
            variables[variable.strip()] = text.strip()
        elif name.lower() == "@include":
            if section:
                yield section
                section = None
            yield from _included(path, value, draft, depth)
        elif section is None:
            raise ConfigurationError(f"{path}:{number}: a line before the first [SECTION]")
        else:
            section.pairs.append((name.lower(), value))
    if section:
        yield section


def _included(path: Path, pattern: str, draft: Draft, depth: int) -> Iterator[Section]:
    files = (
        sorted(path.parent.glob(pattern)) if not pattern.startswith("/") else [Path(pattern)]
    )
    files = [file for file in files if file.is_file()]
    if not files or depth >= _MOST_INCLUDES:
        draft.lack(f"@INCLUDE {pattern}: no such file")
    for file in files[: 100 if depth < _MOST_INCLUDES else 0]:
        yield from _of_classic(file, draft, depth + 1)


def _of_yaml(path: Path, draft: Draft) -> Iterator[Section]:
    """The sections of a YAML file."""
    try:
        config = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{path}{line}: not YAML") from None
    if not isinstance(config, dict):
        raise ConfigurationError(
            f"{path}: a configuration of Fluent Bit has a block `pipeline`"
        )
    for pattern in config.get("includes") or ():
        draft.lack(f"included file {pattern}: import it on its own")
    if isinstance(config.get("service"), dict):
        yield _section("service", config["service"])
    for kind in ("parsers", "multiline_parsers"):
        for values in config.get(kind) or ():
            yield _section(kind.removesuffix("s"), values)
    blocks = config.get("pipeline") or {}
    for kind in ("inputs", "filters", "outputs"):
        for values in blocks.get(kind) or ():
            yield _section(kind.removesuffix("s"), values)


def _section(kind: str, values: Mapping[str, Any]) -> Section:
    section = Section(kind)
    for name, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            section.pairs.append((str(name).lower(), item))
    return section


def _parsers(
    path: Path, sections: Iterable[Section], draft: Draft
) -> Iterator[tuple[str, Options]]:
    """Name → options of the parsers of this configuration and of its ``parsers_file``s."""
    for section in sections:
        if section.kind == "parser":
            yield str(section.options.get("name")), section.options
        for _, value in section.all("parsers_file") if section.kind == "service" else ():
            file = path.parent / value
            if not file.is_file():
                draft.lack(f"parsers_file {value}: no such file")
                continue
            for found in _of_classic(file, draft):
                if found.kind == "parser":
                    yield str(found.options.get("name")), found.options


# -- inputs ------------------------------------------------------------------------------------------


def _input(draft: Draft, section: Section, parsers: Mapping[str, Options]) -> None:
    name, options = section.plugin, section.options
    if name == "tail":
        draft.read_files(_split(options.get("path")))
        excluded = [Path(pattern).name for pattern in _split(options.get("exclude_path"))]
        if excluded:
            draft.set("source", exclude=excluded)
        for parser in [
            *_split(options.get("parser")),
            *_split(options.get("multiline.parser")),
        ]:
            _parser(draft, section, parser, parsers)
    elif name == "stdin":
        draft.note(
            "source",
            "Standard input is not read: write it into a file below events_dir (`… >> FILE`).",
        )
    elif name in RECEIVED:
        draft.note("source", f"Input {name}: point its senders at `obs receive`.")
        if name == "forward":
            draft.lack(
                f"{section}: the forward protocol; Fluentd and Fluent Bit can send with http"
            )
    else:
        draft.lack(str(section))
        return
    draft.lack_options(str(section), section.options)


def _parser(draft: Draft, section: Section, name: str, parsers: Mapping[str, Options]) -> None:
    """What a parser means for a source: the format of its lines, or the field with the time."""
    if name in _TEXT_FORMATS:
        draft.set("source", format=_TEXT_FORMATS[name])
        return
    options = parsers.get(name)
    if options is None:
        draft.lack(f"{section}: the parser {name}, which is not defined here")
    elif str(options.get("format")).lower() != "json":
        draft.lack(
            f"{section}: the parser {name} ({options.get('format')}); events are JSON lines"
        )
    elif options.get("time_key"):
        draft.set("source", time_path=str(options["time_key"]))


def _split(value: Any) -> list[str]:
    return [part.strip() for part in str(value or "").split(",") if part.strip()]


# -- filters -----------------------------------------------------------------------------------------

Act = Callable[[Draft, Section], None]
"""What a part does to the draft."""


def _do(acts: Mapping[str, Act], draft: Draft, section: Section) -> None:
    name = section.plugin
    if name not in acts:
        draft.lack(str(section))
        return
    acts[name](draft, section)
    draft.lack_options(str(section), section.options)
    match = str(section.options.get("match", "*"))
    if match not in {"*", ""} and section.kind == "filter":
        draft.note("filter", f"{section} was for the tag {match}; here it is for all events.")


def _grep(draft: Draft, section: Section) -> None:
    options = section.options
    if str(options.get("logical_op", "legacy")).lower() == "and":
        draft.lack(f"{section}: logical_op and: each rule decides alone here")
    for name, value in section.all("exclude", "regex"):
        options.get(name)
        key, _, pattern = value.partition(" ")
        act = draft.drop if name == "exclude" else draft.keep
        act(key.lstrip("$"), pattern.strip())


def _fields(draft: Draft, section: Section) -> None:
    """Fixed fields of ``record_modifier`` and ``modify``."""
    options = section.options
    fields: dict[str, Any] = {}
    for name, value in section.all("record", "add", "set"):
        options.get(name)
        key, _, text = value.partition(" ")
        fields[key] = substituted(text.strip())
        if name == "set":
            draft.lack(
                f"{section}: set {key} replaces a value; a field of an event is never replaced here"
            )
    if fields:
        before = draft.blocks.get("enrich", {}).get("static_fields", {})
        draft.set("enrich", static_fields={**before, **fields})
        draft.note("enrich", "static_fields are added to events that have no such field.")


_FILTERS: Mapping[str, Act] = {
    "grep": _grep,
    "modify": _fields,
    "record_modifier": _fields,
}
"""Name of a filter → what it does to the draft."""


# -- outputs -----------------------------------------------------------------------------------------


def _host(options: Options, default_port: int) -> str:
    scheme = "https" if truth(options.get("tls")) else "http"
    host = options.get("host", "127.0.0.1")
    port = options.get("port", default_port)
    return address(f"{scheme}://{host}:{port}")


def _elasticsearch(draft: Draft, section: Section) -> None:
    options = section.options
    index = options.get("logstash_prefix") or options.get("index")
    draft.send(
        "elasticsearch",
        f"{section}: set ELASTICSEARCH_URL ({_host(options, 9200)}).",
        index=fixed(index).lower(),
    )


def _s3(draft: Draft, section: Section) -> None:
    options = section.options
    draft.send(
        "s3",
        f"{section}: an object for each hour, below its own folders by time.",
        bucket=substituted(options.get("bucket")),
        region=substituted(options.get("region")),
        endpoint_url=options.get("endpoint"),
        prefix=folder_of(options.get("s3_key_format")) or "events",
        storage_class=options.get("storage_class"),
    )


def _http(draft: Draft, section: Section) -> None:
    options = section.options
    draft.send_webhook(str(section), f"{_host(options, 80)}{options.get('uri', '/')}")


def _splunk(draft: Draft, section: Section) -> None:
    options = section.options
    draft.send(
        "splunk",
        f"{section}: set SPLUNK_HEC_URL ({_host(options, 8088)}) and SPLUNK_HEC_TOKEN.",
        index=fixed(options.get("event_index")),
        sourcetype=fixed(options.get("event_sourcetype")),
        source=fixed(options.get("event_source")),
    )


def _datadog(draft: Draft, section: Section) -> None:
    options = section.options
    tags = _split(options.get("dd_tags"))
    draft.send(
        "datadog",
        f"{section}: set DD_API_KEY, and DD_SITE if it is not datadoghq.com.",
        service=options.get("dd_service"),
        ddsource=options.get("dd_source"),
        tags=tags or None,
    )
    options.get("host")


def _cloudwatch(draft: Draft, section: Section) -> None:
    options = section.options
    stream = options.get("log_stream_prefix") or options.get("log_stream_name")
    draft.send(
        "cloudwatch",
        f"{section}: set AWS_REGION ({options.get('region')}).",
        log_group=fixed(options.get("log_group_name")),
        stream_prefix=fixed(stream),
    )


_OUTPUTS: Mapping[str, Act] = {
    "es": _elasticsearch,
    "opensearch": _elasticsearch,
    "s3": _s3,
    "http": _http,
    "splunk": _splunk,
    "datadog": _datadog,
    "cloudwatch_logs": _cloudwatch,
}
"""Name of an output → what it adds to the draft."""
