"""Configurations of other collectors become pipeline files that load, and name all that they lack."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from obs_assets.cli.app import app
from obs_assets.errors import ConfigurationError
from obs_assets.hourly import pipeline
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.migration import Draft, read_fluent_bit, read_vector
from obs_assets.migration.draft import address

VECTOR = """
data_dir: /var/lib/vector
sources:
  shop:
    type: file
    include: ["/var/log/shop/*.log", "/var/log/shop/old/*.jsonl"]
    exclude: ["/var/log/shop/debug.log"]
    ignore_older_secs: 86400
  in: {type: stdin}
  senders: {type: opentelemetry, grpc: {address: "0.0.0.0:4317"}, http: {address: "0.0.0.0:4318"}}
transforms:
  parsed:
    type: remap
    inputs: [shop]
    source: |
      . = parse_json!(.message)
      .region = "eu-central-1"
  quiet:
    type: filter
    inputs: [parsed]
    condition: '.level != "debug" && .type != "heartbeat" && !contains(string!(.path), "/healthz")'
  some: {type: sample, inputs: [quiet], rate: 10}
  once: {type: dedupe, inputs: [some], fields: {match: [id]}}
  secret: {type: lua, inputs: [once], source: "token = 'LEAKED'"}
sinks:
  search:
    type: elasticsearch
    inputs: [some]
    endpoints: ["https://me:LEAKED@search.example.com:9200"]
    bulk: {index: "shop-%Y.%m.%d"}
    auth: {strategy: basic, user: me, password: LEAKED}
  archive:
    type: aws_s3
    inputs: [parsed]
    bucket: my-log-archives
    region: "${AWS_REGION:-eu-central-1}"
    key_prefix: "shop/date=%F/"
    compression: gzip
    encoding: {codec: json}
  hook: {type: http, inputs: [quiet], uri: "https://example.com/in?key=LEAKED", method: post}
  dd: {type: datadog_logs, inputs: [some], default_api_key: LEAKED, site: datadoghq.eu}
  hec:
    type: splunk_hec_logs
    inputs: [some]
    endpoint: "https://splunk.example.com:8088"
    default_token: LEAKED
    index: main
    sourcetype: "{{ sourcetype }}"
  aws:
    type: aws_cloudwatch_logs
    inputs: [some]
    group_name: /shop/{{ host }}
    stream_name: web
    region: eu-central-1
  out: {type: console, inputs: [some], encoding: {codec: json}}
"""

VECTOR_TOML = """
data_dir = "/var/lib/vector"

[sources.shop]
type = "file"
include = ["/var/log/shop/*.log"]

[transforms.errors]
type = "filter"
inputs = ["shop"]
condition = '.type == "payment"'

[sinks.search]
type = "elasticsearch"
inputs = ["errors"]
endpoint = "http://127.0.0.1:9200"
"""

CLASSIC = """
[SERVICE]
    Flush        5
    Parsers_File parsers.conf

@SET folder=/var/log/shop
@INCLUDE more/*.conf

[INPUT]
    Name              tail
    Path              ${folder}/*.log, ${folder}/old/*.log
    Exclude_Path      ${folder}/debug.log
    Parser            shop
    Mem_Buf_Limit     5MB

[FILTER]
    Name     grep
    Match    shop.*
    Exclude  level ^(debug|trace)$
    Exclude  $path /healthz

[FILTER]
    Name     record_modifier
    Match    *
    Record   region ${AWS_REGION}
    Remove_key  secret

[OUTPUT]
    Name             es
    Match            *
    Host             search.example.com
    Port             9200
    tls              On
    HTTP_User        me
    HTTP_Passwd      LEAKED
    Logstash_Format  On
    Logstash_Prefix  shop

[OUTPUT]
    Name  s3
    Match *
    bucket my-log-archives
    region eu-central-1
    s3_key_format /shop/$TAG/%Y/%m/%d/$UUID.gz
    compression gzip

[OUTPUT]
    Name splunk
    Match *
    Host splunk.example.com
    Splunk_Token LEAKED
    Event_Index main

[OUTPUT]
    Name http
    Match *
    Host example.com
    URI  /in?key=LEAKED
    Header Authorization LEAKED
"""

MORE = """
[OUTPUT]
    name  datadog
    match *
    apikey LEAKED
    dd_service shop
    dd_tags team:shop,env:prod
"""

PARSERS = """
[PARSER]
    Name     shop
    Format   json
    Time_Key created.at
"""

FLUENT_YAML = """
service: {flush: 1, log_level: info}
parsers:
  - {name: apache, format: regex, regex: '^(?<host>.*)$'}
pipeline:
  inputs:
    - {name: tail, path: /var/log/containers/*.log, multiline.parser: "docker, cri", parser: apache}
    - {name: opentelemetry, port: 4318}
    - {name: systemd, tag: host.*}
  filters:
    - {name: kubernetes, match: "kube.*"}
    - {name: modify, match: "*", add: [team shop, stage prod]}
    - {name: grep, match: "*", regex: type ^(payment|refund)$}
  outputs:
    - name: cloudwatch_logs
      match: "*"
      region: eu-central-1
      log_group_name: /shop/app
      log_stream_prefix: web-
      auto_create_group: on
    - {name: stdout, match: "*"}
"""


def imported(
    read: Callable[[Path], Draft], folder: Path, name: str, text: str
) -> tuple[PipelineConfig, str]:
    """The configuration of the written file, and its text."""
    path = folder / name
    path.write_text(text)
    written = read(path).text('  asset_prefix: ""')
    return pipeline.load(folder / "defs.yaml", {}, written), written


def kinds(config: PipelineConfig) -> list[str]:
    return [str(block.model_dump()["type"]) for block in config.destinations]


def test_a_configuration_of_vector(tmp_path: Path) -> None:
    """Files, conditions of simple comparisons, rates, fixed fields and six sinks have counterparts."""
    config, text = imported(read_vector, tmp_path, "vector.yaml", VECTOR)
    assert config.source.events_dir == Path("/var/log/shop")
    assert config.source.include == ("*.jsonl", "*.log")
    assert config.source.exclude == ("debug.log",)
    assert config.enrich
    assert config.enrich.static_fields == {"region": "eu-central-1"}
    assert config.filter
    assert config.filter.drop_levels == ("debug",)
    assert config.filter.drop_event_types == ("heartbeat",)
    assert config.filter.drop_patterns == ("/healthz",)
    # Vector dropped nothing of its own accord.
    assert not config.filter.drop_low_value
    assert config.sample
    assert config.sample.default_rate == config.sample.error_rate == 0.1
    assert kinds(config) == [
        "elasticsearch",
        "s3",
        "webhook",
        "datadog",
        "splunk",
        "cloudwatch",
    ]
    search, archive, hook, _, hec, aws = (block.model_dump() for block in config.destinations)
    assert search["index"] == "shop"
    assert (archive["bucket"], archive["prefix"]) == ("my-log-archives", "shop")
    # The archive gets what no filter or sampler has reduced.
    assert (search["from_"], archive["from_"]) == ("sampled", "redacted")
    assert hook["url"] is None  # WEBHOOK_URL is not set
    assert (hec["index"], hec["sourcetype"]) == ("main", "_json")
    assert aws["log_group"] == "/shop"
    for said in (
        "point its senders at `obs receive`",
        "Standard input is not read",
        "- sink out (console)",
        "- transform secret (lua)",
        "- transform once (dedupe)",
        "- sink search: the options auth",
        "ELASTICSEARCH_URL (https://search.example.com:9200)",
    ):
        assert said in text
    assert "LEAKED" not in text


def test_vector_in_toml(tmp_path: Path) -> None:
    """The same in TOML; a condition that keeps events drops all others."""
    config, _ = imported(read_vector, tmp_path, "vector.toml", VECTOR_TOML)
    assert config.filter
    assert config.filter.filter_mode == "allowlist"
    assert config.filter.keep_event_types == ("payment",)
    assert kinds(config) == ["elasticsearch"]


def test_a_classic_configuration_of_fluent_bit(tmp_path: Path) -> None:
    """With variables, an included file and a file of parsers."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "datadog.conf").write_text(MORE)
    (tmp_path / "parsers.conf").write_text(PARSERS)
    config, text = imported(read_fluent_bit, tmp_path, "fluent-bit.conf", CLASSIC)
    assert config.source.events_dir == Path("/var/log/shop")
    assert config.source.time_path == "created.at"
    assert config.source.exclude == ("debug.log",)
    assert config.filter
    assert config.filter.drop_levels == ("debug", "trace")
    assert config.filter.drop_patterns == ("/healthz",)
    assert kinds(config) == ["datadog", "elasticsearch", "s3", "splunk", "webhook"]
    datadog, search, archive, hec, hook = (block.model_dump() for block in config.destinations)
    assert datadog["tags"] == ("team:shop", "env:prod")
    assert search["index"] == "shop"
    assert archive["prefix"] == "shop"
    assert hec["index"] == "main"
    assert hook["url"] is None  # WEBHOOK_URL is not set
    for said in (
        "ELASTICSEARCH_URL (https://search.example.com:9200)",
        "- filter record_modifier: the options remove_key",
        "filter grep was for the tag shop.*; here it is for all events",
        "- output splunk: the options splunk_token",
    ):
        assert said in text
    assert "LEAKED" not in text


def test_fluent_bit_in_yaml(tmp_path: Path) -> None:
    """Formats of containers are named; what has no counterpart is a comment."""
    config, text = imported(read_fluent_bit, tmp_path, "fluent-bit.yaml", FLUENT_YAML)
    assert config.source.events_dir == Path("/var/log/containers")
    assert config.source.format == "cri"
    assert config.enrich
    assert config.enrich.static_fields == {"team": "shop", "stage": "prod"}
    assert config.filter
    assert config.filter.keep_event_types == ("payment", "refund")
    assert kinds(config) == ["cloudwatch"]
    for said in (
        "- filter kubernetes",
        "- input systemd",
        "- output stdout",
        "the parser apache (regex)",
        "Input opentelemetry: point its senders at `obs receive`",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("condition", "rule"),
    [
        ('.severity != "trace"', {"drop_levels": ("trace",)}),
        ("!match(.message, r'GET /ping')", {"drop_patterns": ("GET /ping",)}),
        ('.a.b != "x.y"', {"drop_patterns": (r"^x\.y$",)}),
        ('contains(.message, "paid")', {"keep_patterns": ("paid",)}),
    ],
)
def test_conditions(tmp_path: Path, condition: str, rule: dict[str, tuple[str, ...]]) -> None:
    """A comparison of a field with a text is a rule."""
    text = VECTOR_TOML.replace("'.type == \"payment\"'", f"'''{condition}'''")
    config, _ = imported(read_vector, tmp_path, "vector.toml", text)
    assert config.filter
    assert {name: getattr(config.filter, name) for name in rule} == rule


@pytest.mark.parametrize(
    "condition", ['.level != "debug" && .n > 5', "is_json(.message)", '.a == "x" || .b == "y"']
)
def test_no_half_condition(tmp_path: Path, condition: str) -> None:
    """A condition that is not understood as a whole drops nothing, and is named."""
    text = VECTOR_TOML.replace('.type == "payment"', condition)
    config, written = imported(read_vector, tmp_path, "vector.toml", text)
    assert config.filter is None
    assert "- transform errors (filter): its condition" in written


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.yaml", "sources: [\n", "a.yaml:2: not YAML"),
        ("a.toml", "sources = \n", "not TOML"),
        ("a.yaml", "a: 1\n", "has blocks `sources` and `sinks`"),
    ],
)
def test_no_configuration_of_vector(tmp_path: Path, name: str, text: str, problem: str) -> None:
    """The message names the file and the mistake."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=problem):
        read_vector(tmp_path / name)


def test_no_configuration_of_fluent_bit(tmp_path: Path) -> None:
    """A file with parsers alone, or with a line outside every section, is refused."""
    (tmp_path / "parsers.conf").write_text(PARSERS)
    with pytest.raises(ConfigurationError, match="has inputs and outputs"):
        read_fluent_bit(tmp_path / "parsers.conf")
    (tmp_path / "a.conf").write_text("Name tail\n")
    with pytest.raises(ConfigurationError, match=r"a\.conf:1: a line before the first"):
        read_fluent_bit(tmp_path / "a.conf")


def test_the_command_writes_a_file_once(tmp_path: Path) -> None:
    """It prints what has no counterpart; a file that is there stays as it is."""
    (tmp_path / "vector.yaml").write_text(VECTOR)
    command = ["import", "vector", str(tmp_path / "vector.yaml"), str(tmp_path)]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "transform once (dedupe)" in first.output
    written = tmp_path / "pipelines" / "events" / "defs.yaml"
    assert pipeline.load(written, {}).asset_prefix == ""
    second = CliRunner().invoke(app, command)
    assert isinstance(second.exception, ConfigurationError)
    third = CliRunner().invoke(app, [*command, "--name", "second"])
    assert third.exit_code == 0, third.output
    assert pipeline.load(written.parents[1] / "second" / "defs.yaml", {}).asset_prefix is None


@pytest.mark.parametrize(
    "url",
    [
        "https://bob:LEAKED@example.com:9200/in",
        "https://bob:LEAKED/x@example.com:9200",
        "https://bob:LEAKED?x#y@example.com:9200/",
        "https://example.com:9200/services/LEAKED",
        "https://example.com:9200?token=LEAKED",
        "https://example.com:9200#LEAKED",
    ],
)
def test_an_address_shows_no_secret(url: str) -> None:
    """A user, a password, a path and a query can be secrets."""
    assert address(url) == "https://example.com:9200"
