"""Vector's configuration (YAML, TOML or JSON) → a pipeline file."""

import re
import tomllib
from collections.abc import Callable, Mapping
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
)

_OF_COURSE = ("type", "inputs")

Act = Callable[[Draft, str, Options], None]
"""What a part does to the draft; its arguments are the draft, the part's name and its options."""

RECEIVED = frozenset(
    {
        "http_server",
        "http",
        "opentelemetry",
        "splunk_hec",
        "logstash",
        "datadog_agent",
        "vector",
    }
)
"""Sources that take events over the network; `obs receive` takes most of their protocols."""

_FIELD = r"\.(?P<field>[\w.]+)"

_CONDITIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf'{_FIELD}\s*!=\s*"(?P<text>[^"]*)"'), "drop equal"),
    (re.compile(rf'{_FIELD}\s*==\s*"(?P<text>[^"]*)"'), "keep equal"),
    (
        re.compile(rf'!\s*contains\((?:string!?\()?{_FIELD}\)?,\s*"(?P<text>[^"]*)"\)'),
        "drop part",
    ),
    (re.compile(rf'contains\((?:string!?\()?{_FIELD}\)?,\s*"(?P<text>[^"]*)"\)'), "keep part"),
    (
        re.compile(rf"!\s*match!?\((?:string!?\()?{_FIELD}\)?,\s*r'(?P<text>[^']*)'\)"),
        "drop pattern",
    ),
    (
        re.compile(rf"match!?\((?:string!?\()?{_FIELD}\)?,\s*r'(?P<text>[^']*)'\)"),
        "keep pattern",
    ),
)
"""Conditions of one comparison → whether equal, containing or matching events are dropped or kept."""

_ASSIGNMENT = re.compile(r'\.(\w+)\s*=\s*(?:"([^"\\]*)"|(\d+|true|false))')

_PARSES_JSON = re.compile(
    r"\.\s*\|?=\s*(?:object!?\()?\s*parse_json!?\((?:string!?\()?\s*\.message\s*\)?\s*\)\s*\)?"
)


def read_vector(path: Path) -> Draft:
    """A pipeline file from a configuration of Vector.

    Raises:
        ConfigurationError: the file cannot be read; the message says why.
    """
    config = _load(path)
    draft = Draft(f"Vector's {path.name}")
    for name, options in _parts(config, "sources").items():
        _source(draft, name, options)
    transforms = _parts(config, "transforms")
    for name, options in transforms.items():
        _do(_TRANSFORMS, draft, f"transform {name}", options)
    reduced = "filter" in draft.blocks or "sample" in draft.blocks
    for name, options in _parts(config, "sinks").items():
        is_known = _do(_SINKS, draft, f"sink {name}", options)
        if is_known and reduced and not _passes(options, transforms):
            # It takes the events that another sink gets filtered or sampled.
            draft.destinations[-1]["from"] = "redacted"
    for name in set(config) - {"sources", "transforms", "sinks", "data_dir"}:
        draft.lack(f"block {name}")
    draft.lacking.sort()
    return draft


def _do(acts: Mapping[str, Act], draft: Draft, part: str, options: Options) -> bool:
    """Put a part into the draft; false if its type has no counterpart."""
    kind = str(options.get("type"))
    if kind not in acts:
        draft.lack(f"{part} ({kind})")
        return False
    acts[kind](draft, part, options)
    draft.lack_options(part, options)
    return True


def _load(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        kind = "TOML" if path.suffix == ".toml" else "YAML"
        raise ConfigurationError(f"{path}{line}: not {kind}, or not UTF-8") from None
    if not isinstance(found, dict) or not {"sources", "sinks"} & set(found):
        raise ConfigurationError(
            f"{path}: a configuration of Vector has blocks `sources` and `sinks`"
        )
    return found


def _parts(config: Mapping[str, Any], kind: str) -> dict[str, Options]:
    parts = config.get(kind) or {}
    if not isinstance(parts, dict):
        raise ConfigurationError(f"{kind} is a mapping of names in a configuration of Vector")
    return {
        str(name): Options(options, _OF_COURSE)
        for name, options in parts.items()
        if isinstance(options, dict)
    }


def _listed(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value or ()]


def _passes(sink: Options, transforms: Mapping[str, Options]) -> bool:
    """Whether a filter or a sampler stands before a sink."""
    waiting = _listed(sink.get("inputs"))
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        options = transforms.get(name) or Options({})
        if options.get("type") in {"filter", "sample"}:
            return True
        if name not in seen:
            seen.add(name)
            waiting += _listed(options.get("inputs"))
    return False


# -- sources ---------------------------------------------------------------------------------------


def _source(draft: Draft, name: str, options: Options) -> None:
    kind = options.get("type")
    if kind == "file":
        draft.read_files(_listed(options.get("include")))
        excluded = [Path(pattern).name for pattern in _listed(options.get("exclude"))]
        if excluded:
            draft.set("source", exclude=excluded)
        if options.get("multiline"):
            draft.lack(
                f"source {name}: multiline; JSON objects over many lines are read as they are"
            )
    elif kind == "stdin":
        draft.note(
            "source",
            "Standard input is not read: write it into a file below events_dir (`… >> FILE`).",
        )
    elif kind in RECEIVED:
        draft.note("source", f"Source {name} ({kind}): point its senders at `obs receive`.")
    elif kind in {"kubernetes_logs", "docker_logs"}:
        draft.read_files(["/var/log/containers/*.log"])
    else:
        draft.lack(f"source {name} ({kind})")
        return
    draft.lack_options(f"source {name}", options)


# -- transforms ------------------------------------------------------------------------------------


def _filter(draft: Draft, name: str, options: Options) -> None:
    condition = options.get("condition")
    if isinstance(condition, dict):
        condition = condition.get("source")
    parts = [_condition(part.strip()) for part in str(condition or "").split("&&")]
    # All or nothing: half of a condition would drop other events.
    if not condition or any(part is None for part in parts):
        draft.lack(f"{name} (filter): its condition")
        return
    for part in parts:
        assert part  # noqa: S101 - see above
        action, field, pattern = part
        act = draft.drop if action == "drop" else draft.keep
        act(field, pattern)


def _condition(text: str) -> tuple[str, str, str] | None:
    """``drop`` or ``keep``, the field, and the regular expression of a simple comparison."""
    for pattern, meaning in _CONDITIONS:
        found = pattern.fullmatch(text)
        if found:
            action, _, manner = meaning.partition(" ")
            value = found["text"]
            if manner != "pattern":
                value = re.escape(value).replace(r"\-", "-")
            if manner == "equal":
                value = f"^{value}$"
            return action, found["field"], value
    return None


def _sample(draft: Draft, name: str, options: Options) -> None:
    share = options.get("ratio")
    if share is None and isinstance(options.get("rate"), int):
        share = round(1 / max(1, options["rate"]), 6)
    if not isinstance(share, int | float):
        draft.lack(f"{name} (sample): its rate")
        return
    draft.set(
        "sample", error_rate=float(share), success_rate=float(share), default_rate=float(share)
    )
    if options.get("exclude"):
        draft.lack(f"{name} (sample): exclude; sample.type_rates keeps types")
    draft.note("sample", "error_rate: 1.0 would keep every error.")


def _remap(draft: Draft, name: str, options: Options) -> None:
    """Statements that set a field to a fixed value, or that take JSON out of the line, which landing does."""
    statements = [
        line.strip() for line in str(options.get("source", "")).splitlines() if line.strip()
    ]
    fields: dict[str, Any] = {}
    for statement in statements:
        found = _ASSIGNMENT.fullmatch(statement)
        if found:
            fields[found[1]] = found[2] if found[2] is not None else yaml.safe_load(found[3])
        elif not (_PARSES_JSON.fullmatch(statement) or statement.startswith("#")):
            draft.lack(f"{name} (remap): VRL; enrich.function runs a Python function of yours")
            return
    if fields:
        _static(draft, fields)


def _static(draft: Draft, fields: Mapping[str, Any]) -> None:
    before = draft.blocks.get("enrich", {}).get("static_fields", {})
    draft.set("enrich", static_fields={**before, **fields})
    draft.note("enrich", "static_fields are added to events that have no such field.")


def _dedupe(draft: Draft, name: str, options: Options) -> None:
    for option in options:
        options.get(option)  # the sentence covers them all
    draft.lack(
        f"{name} (dedupe): a copied, renamed or rotated file is read once; equal events "
        "of one file are kept"
    )


_TRANSFORMS: Mapping[str, Act] = {
    "filter": _filter,
    "sample": _sample,
    "remap": _remap,
    "dedupe": _dedupe,
}
"""Type of a transform → what it does to the draft."""


# -- sinks -----------------------------------------------------------------------------------------


def _inner(options: Options, name: str) -> Mapping[str, Any]:
    found = options.get(name)
    return found if isinstance(found, dict) else {}


def _elasticsearch(draft: Draft, name: str, options: Options) -> None:
    endpoints = _listed(options.get("endpoints") or options.get("endpoint"))
    index = fixed(_inner(options, "bulk").get("index"))
    at = ", ".join(map(address, endpoints)) or "its address"
    draft.send("elasticsearch", f"{name}: set ELASTICSEARCH_URL ({at}).", index=index.lower())


def _s3(draft: Draft, name: str, options: Options) -> None:
    draft.send(
        "s3",
        f"{name}: an object for each hour, below its own folders by time.",
        bucket=substituted(options.get("bucket")),
        region=substituted(options.get("region")),
        endpoint_url=options.get("endpoint"),
        prefix=folder_of(options.get("key_prefix")) or "events",
        storage_class=options.get("storage_class"),
        compression=None if options.get("compression", "gzip") == "gzip" else False,
    )


def _http(draft: Draft, name: str, options: Options) -> None:
    method = str(options.get("method", "post")).upper()
    draft.send_webhook(name, str(options.get("uri", "")), method=method)


def _datadog(draft: Draft, name: str, options: Options) -> None:
    site = options.get("site") or "datadoghq.com"
    draft.send("datadog", f"{name}: set DD_API_KEY, and DD_SITE ({site}).")


def _splunk(draft: Draft, name: str, options: Options) -> None:
    at = address(options.get("endpoint"))
    draft.send(
        "splunk",
        f"{name}: set SPLUNK_HEC_URL ({at}) and SPLUNK_HEC_TOKEN.",
        index=fixed(options.get("index")),
        sourcetype=fixed(options.get("sourcetype")),
        source=fixed(options.get("source")),
    )


def _cloudwatch(draft: Draft, name: str, options: Options) -> None:
    draft.send(
        "cloudwatch",
        f"{name}: set AWS_REGION ({options.get('region')}).",
        log_group=str(options.get("group_name", "")).partition("{{")[0].rstrip("/"),
        stream_prefix=fixed(options.get("stream_name")),
    )


_SINKS: Mapping[str, Act] = {
    "elasticsearch": _elasticsearch,
    "aws_s3": _s3,
    "http": _http,
    "datadog_logs": _datadog,
    "splunk_hec": _splunk,
    "splunk_hec_logs": _splunk,
    "aws_cloudwatch_logs": _cloudwatch,
}
"""Type of a sink → what it adds to the draft."""
