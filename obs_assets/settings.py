"""Settings of the machine: data folder, servers and secrets. Only this module reads the environment.

The pipeline itself is configured in its YAML file, see `obs_assets.hourly.pipeline`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import unquote, urlsplit

from pydantic import (
    BaseModel,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    field_validator,
)

from obs_assets import crash
from obs_assets.errors import ConfigurationError


class PostgresSettings(BaseModel, frozen=True, extra="forbid"):
    """The address and credentials of a PostgreSQL server.

    Attributes:
        host: host name or IP address.
        port: TCP port.
        database: name of the database.
        user: name of the role.
        password: password of the role; None leaves the choice to PostgreSQL's own files and rules.
    """

    host: str
    port: int = 5432
    database: str = "cortex_observability"
    user: str = "postgres"
    password: SecretStr | None = None


class S3Settings(BaseModel, frozen=True, extra="forbid"):
    """The address of a bucket, and for the embedded server its credentials.

    Attributes:
        bucket: name of the bucket.
        region: AWS region of the bucket.
        endpoint_url: address of an S3 store; None for AWS.
        access_key_id: key of the embedded server; None uses the standard AWS credentials.
        secret_access_key: secret of that key.
    """

    bucket: str
    region: str = "us-east-1"
    endpoint_url: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None


class WebhookSettings(BaseModel, frozen=True, extra="forbid"):
    """Secrets and permissions of webhooks.

    Attributes:
        url: address of the receiver; None records requests and sends nothing.
        auth_token: token for ``auth_type: bearer``.
        api_key: key for ``auth_type: api-key``.
        hmac_secret: secret that signs the requests.
        allow_private: webhooks may call loopback and private addresses.
        send_old: alerts about hours older than ``max_age_hours`` are sent too.
    """

    url: SecretStr | None = None
    auth_token: SecretStr | None = None
    api_key: SecretStr | None = None
    hmac_secret: SecretStr | None = None
    allow_private: bool = False
    send_old: bool = False


def _checked_address(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must begin with http:// or https:// and name a host")
    return url


def _shown(url: SecretStr) -> str:
    parts = urlsplit(url.get_secret_value())
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")


class ElasticsearchSettings(BaseModel, frozen=True, extra="forbid"):
    """The address of an Elasticsearch or OpenSearch cluster, and its credentials.

    Attributes:
        url: address; it can hold a user and a password.
        api_key: encoded API key; it takes the place of user and password.
    """

    url: SecretStr
    api_key: SecretStr | None = None

    _is_address = field_validator("url")(_checked_address)

    @property
    def shown_url(self) -> str:
        """The address without user, password and last slash."""
        return _shown(self.url)

    @property
    def basic_auth(self) -> tuple[str, str] | None:
        """User and password of the address; None if it has none."""
        parts = urlsplit(self.url.get_secret_value())
        if parts.username is None:
            return None
        return unquote(parts.username), unquote(parts.password or "")


class SplunkSettings(BaseModel, frozen=True, extra="forbid"):
    """Splunk's HTTP Event Collector.

    Attributes:
        url: address, for example ``https://splunk.example.com:8088``.
        token: token of the collector.
    """

    url: SecretStr
    token: SecretStr

    _is_address = field_validator("url")(_checked_address)

    @property
    def shown_url(self) -> str:
        """The address without user, password and last slash."""
        return _shown(self.url)


class DatadogSettings(BaseModel, frozen=True, extra="forbid"):
    """The account of Datadog.

    Attributes:
        api_key: API key of the organization.
        site: site of the organization, for example ``datadoghq.eu``.
    """

    api_key: SecretStr
    site: str = Field("datadoghq.com", pattern=r"^[A-Za-z0-9.-]+$")


class ServerSettings(BaseModel, frozen=True, extra="forbid"):
    """Where a server listens.

    Attributes:
        auth: how clients are known; ``none`` is any program of this machine.
        host: address that it listens on.
        port: TCP port.
        hosts: names that a request may ask for in its header ``Host``, beside ``localhost`` and
            addresses.
        tls_certificate: file with the certificate and its chain; None for plain HTTP.
        tls_key: file with the key of the certificate.
    """

    prefix: ClassVar[str]
    """Beginning of the variables of these settings."""

    auth: str
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65_535)
    hosts: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    @property
    def address(self) -> str:
        """The address for a browser, for example ``http://127.0.0.1:3001``."""
        scheme = "https" if self.tls_certificate else "http"
        host = self.host
        if host in {"0.0.0.0", "::"}:  # noqa: S104 - every address of the machine
            host = next(iter(self.hosts), "127.0.0.1")
        if ":" in host:
            host = f"[{host}]"
        return f"{scheme}://{host}:{self.port}"

    @field_validator("hosts", mode="before")
    @classmethod
    def _split_hosts(cls, listed: object) -> object:
        """A list in an environment variable has commas between its items."""
        return _items(listed)


class ReceiveSettings(ServerSettings, frozen=True, extra="forbid"):
    """Where ``obs receive`` listens, and who may send events.

    Attributes:
        auth: who may send: ``none``, any program of this machine; ``token``, the holder of a token
            with the scope ``write``.
    """

    port: int = Field(4318, ge=1, le=65_535)
    prefix = "OBS_RECEIVE_"
    auth: Literal["none", "token"] = "none"


class ApiSettings(ServerSettings, frozen=True, extra="forbid"):
    """Where and to whom ``obs serve`` answers.

    Attributes:
        host: address that it listens on.
        port: TCP port.
        auth: ``none`` (loopback only), ``token`` or ``proxy``.
        proxies: addresses of proxies whose user header is believed, for ``proxy``.
        hosts: names that a request may ask for in its header ``Host``, beside ``localhost`` and
            addresses.
        tls_certificate: file with the certificate and its chain; None for plain HTTP.
        tls_key: file with the key of the certificate.
        tokens: file of the tokens; None for ``tokens.json`` in the data folder.
        environment: name that the explorer shows in its head.
        dagster_url: address of Dagster's UI, which the explorer links to; None shows no links.
    """

    host: str = "127.0.0.1"
    port: int = Field(3001, ge=1, le=65_535)
    prefix = "OBS_API_"
    auth: Literal["none", "token", "proxy"] = "none"
    proxies: tuple[IPvAnyNetwork, ...] = ()
    hosts: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tokens: Path | None = None
    environment: str = Field("", max_length=40)
    dagster_url: str | None = Field(None, pattern="^https?://")

    @field_validator("proxies", mode="before")
    @classmethod
    def _split(cls, listed: object) -> object:
        """A list in an environment variable has commas between its items."""
        return _items(listed)


def _items(listed: object) -> object:
    if isinstance(listed, str):
        return [item.strip() for item in listed.split(",") if item.strip()]
    return listed


class Settings(BaseModel, frozen=True, extra="forbid"):
    """All settings of the environment.

    Attributes:
        data_dir: folder of all local state (``OBS_DATA_DIR``, default ``.obs``).
        postgres: the PostgreSQL server; None when ``POSTGRES_HOST`` is unset, for the embedded
            server.
        s3: the S3 server; None when ``AWS_S3_BUCKET`` is unset, for the embedded server.
        webhook: secrets and permissions of webhooks.
        elasticsearch: the cluster of ``type: elasticsearch``; None when ``ELASTICSEARCH_URL`` is unset:
            such a destination is off.
        splunk: the collector of ``type: splunk``; None when ``SPLUNK_HEC_URL`` is unset.
        datadog: the account of ``type: datadog``; None when ``DD_API_KEY`` is unset.
        aws_region: region of ``type: cloudwatch``; empty when ``AWS_REGION`` is unset.
        hash_key: secret key of the tokens that redaction leaves (``OBS_HASH_KEY``).
        api: where and to whom ``obs serve`` answers.
        receive: where and from whom ``obs receive`` takes events.
    """

    data_dir: Path = Path(".obs")
    postgres: PostgresSettings | None = None
    s3: S3Settings | None = None
    webhook: WebhookSettings = WebhookSettings()
    elasticsearch: ElasticsearchSettings | None = None
    splunk: SplunkSettings | None = None
    datadog: DatadogSettings | None = None
    aws_region: str = ""
    hash_key: SecretStr | None = None
    api: ApiSettings = ApiSettings()
    receive: ReceiveSettings = ReceiveSettings()


PIPELINES_DIR = "OBS_PIPELINES_DIR"
"""The variable that names the folder of pipelines; see `obs_assets.hourly.pipeline_files`."""


@dataclass(frozen=True)
class Variable:
    """An environment variable, for the reference in docs/settings.md.

    Attributes:
        name: name of the variable.
        default: default value, or a description of it.
        example: an assignment, ``NAME=value``.
        meaning: a sentence about its effect.
    """

    name: str
    default: str
    example: str
    meaning: str


VARIABLES = (
    Variable(
        PIPELINES_DIR,
        "`./pipelines` if it holds any, else the packaged example",
        "OBS_PIPELINES_DIR=/etc/obs_assets/pipelines",
        "Folder with your pipelines, each a folder with a `defs.yaml`.",
    ),
    Variable(
        "OBS_EVENTS_DIR",
        "the folder `events` of `OBS_DATA_DIR`, if it exists",
        "OBS_EVENTS_DIR=/var/log/agents",
        "Folder or `s3://bucket/prefix` with the event files; pipeline files read it.",
    ),
    Variable(
        "OBS_DATA_DIR",
        "`.obs` below the working directory",
        "OBS_DATA_DIR=/var/lib/obs",
        "Folder for all local state: landed events, frames, receipts, embedded servers.",
    ),
    Variable(
        "POSTGRES_HOST",
        "the embedded server",
        "POSTGRES_HOST=db.example.com",
        "Host of your PostgreSQL server.",
    ),
    Variable("POSTGRES_PORT", "5432", "POSTGRES_PORT=6432", "Port of that server."),
    Variable(
        "POSTGRES_DB",
        "`cortex_observability`",
        "POSTGRES_DB=observability",
        "Database of the event tables.",
    ),
    Variable(
        "POSTGRES_USER", "`postgres`", "POSTGRES_USER=obs_loader", "Role that loads events."
    ),
    Variable(
        "POSTGRES_PASSWORD",
        "none",
        "POSTGRES_PASSWORD=…",
        "Password of that role; without it PostgreSQL's own files and rules decide.",
    ),
    Variable(
        "AWS_S3_BUCKET",
        "the embedded server",
        "AWS_S3_BUCKET=my-event-archive",
        "Bucket of the archive. Credentials come from the usual AWS variables and files.",
    ),
    Variable("AWS_REGION", "`us-east-1`", "AWS_REGION=eu-central-1", "Region of the bucket."),
    Variable(
        "AWS_DEFAULT_REGION",
        "`us-east-1`",
        "AWS_DEFAULT_REGION=eu-central-1",
        "Region of the bucket where `AWS_REGION` is unset.",
    ),
    Variable(
        "AWS_ENDPOINT_URL_S3",
        "AWS",
        "AWS_ENDPOINT_URL_S3=https://minio.example.com:9000",
        "Address of an S3 store that is not AWS.",
    ),
    Variable(
        "WEBHOOK_URL",
        "none: requests are recorded, not sent",
        "WEBHOOK_URL=https://hooks.example.com/obs",
        "Address of the webhook's receiver.",
    ),
    Variable(
        "WEBHOOK_AUTH_TOKEN", "none", "WEBHOOK_AUTH_TOKEN=…", "Token for `auth_type: bearer`."
    ),
    Variable("WEBHOOK_API_KEY", "none", "WEBHOOK_API_KEY=…", "Key for `auth_type: api-key`."),
    Variable(
        "WEBHOOK_HMAC_SECRET",
        "none",
        "WEBHOOK_HMAC_SECRET=…",
        "Secret that signs the requests.",
    ),
    Variable(
        "OBS_WEBHOOK_ALLOW_PRIVATE",
        "off",
        "OBS_WEBHOOK_ALLOW_PRIVATE=true",
        "Lets webhooks call loopback and private addresses.",
    ),
    Variable(
        "OBS_WEBHOOK_SEND_OLD",
        "off",
        "OBS_WEBHOOK_SEND_OLD=true",
        "Sends alerts about hours older than `max_age_hours`, too.",
    ),
    Variable(
        "ELASTICSEARCH_URL",
        "none: a destination of type `elasticsearch` is off",
        "ELASTICSEARCH_URL=https://search.example.com:9200",
        "Address of an Elasticsearch or OpenSearch cluster; it can hold user and password.",
    ),
    Variable(
        "ELASTICSEARCH_API_KEY",
        "none",
        "ELASTICSEARCH_API_KEY=…",
        "API key for that cluster, in its encoded form.",
    ),
    Variable(
        "SPLUNK_HEC_URL",
        "none: a destination of type `splunk` is off",
        "SPLUNK_HEC_URL=https://splunk.example.com:8088",
        "Address of Splunk's HTTP Event Collector.",
    ),
    Variable("SPLUNK_HEC_TOKEN", "none", "SPLUNK_HEC_TOKEN=…", "Token of that collector."),
    Variable(
        "DD_API_KEY",
        "none: a destination of type `datadog` is off",
        "DD_API_KEY=…",
        "API key of your Datadog organization.",
    ),
    Variable(
        "DD_SITE", "`datadoghq.com`", "DD_SITE=datadoghq.eu", "Site of that organization."
    ),
    Variable(
        "OBS_HASH_KEY",
        "none: `mode: hash` is refused",
        "OBS_HASH_KEY=…",
        "Secret key of the tokens that `redact: {mode: hash}` leaves.",
    ),
    Variable(
        "OBS_API_HOST",
        "127.0.0.1",
        "OBS_API_HOST=0.0.0.0",
        "Address that `obs serve` listens on; beyond loopback it needs `OBS_API_AUTH`.",
    ),
    Variable("OBS_API_PORT", "3001", "OBS_API_PORT=8080", "Port of `obs serve`."),
    Variable(
        "OBS_API_AUTH",
        "none",
        "OBS_API_AUTH=token",
        "Who may ask `obs serve`: `none` (any program of this machine), `token` or `proxy`.",
    ),
    Variable(
        "OBS_API_PROXIES",
        "none",
        "OBS_API_PROXIES=10.0.0.5,10.1.0.0/16",
        "Addresses of the proxies that `OBS_API_AUTH=proxy` believes.",
    ),
    Variable(
        "OBS_API_HOSTS",
        "none",
        "OBS_API_HOSTS=obs.example.com",
        "Names by which browsers may ask `obs serve`, beside `localhost` and addresses.",
    ),
    Variable(
        "OBS_API_TLS_CERTIFICATE",
        "none: plain HTTP",
        "OBS_API_TLS_CERTIFICATE=/etc/obs/cert.pem",
        "Certificate of `obs serve`, with its chain.",
    ),
    Variable(
        "OBS_API_TLS_KEY",
        "none",
        "OBS_API_TLS_KEY=/etc/obs/key.pem",
        "Key of that certificate.",
    ),
    Variable(
        "OBS_RECEIVE_HOST",
        "127.0.0.1",
        "OBS_RECEIVE_HOST=0.0.0.0",
        "Address that `obs receive` listens on; beyond loopback it needs `OBS_RECEIVE_AUTH=token`.",
    ),
    Variable("OBS_RECEIVE_PORT", "4318", "OBS_RECEIVE_PORT=8088", "Port of `obs receive`."),
    Variable(
        "OBS_RECEIVE_AUTH",
        "none",
        "OBS_RECEIVE_AUTH=token",
        "Who may send to `obs receive`: `none` (any program of this machine) or `token`.",
    ),
    Variable(
        "OBS_RECEIVE_HOSTS",
        "none",
        "OBS_RECEIVE_HOSTS=logs.example.com",
        "Names by which senders may reach `obs receive`, beside `localhost` and addresses.",
    ),
    Variable(
        "OBS_RECEIVE_TLS_CERTIFICATE",
        "none: plain HTTP",
        "OBS_RECEIVE_TLS_CERTIFICATE=/etc/obs/cert.pem",
        "Certificate of `obs receive`, with its chain.",
    ),
    Variable(
        "OBS_RECEIVE_TLS_KEY",
        "none",
        "OBS_RECEIVE_TLS_KEY=/etc/obs/key.pem",
        "Key of that certificate.",
    ),
    Variable(
        "OBS_TOKENS",
        "`tokens.json` in `OBS_DATA_DIR`",
        "OBS_TOKENS=/etc/obs/tokens.json",
        "File of the tokens, written by `obs tokens`.",
    ),
    Variable(
        "OBS_ENVIRONMENT",
        "none",
        "OBS_ENVIRONMENT=production",
        "Name of this environment in the head of the explorer; names that begin with `prod` are red.",
    ),
    Variable(
        "OBS_DAGSTER_URL",
        "none: no links",
        "OBS_DAGSTER_URL=https://dagster.example.com",
        "Address of Dagster's UI, which the explorer's hours link to.",
    ),
    Variable(
        "OBS_CRASH_AT",
        "none",
        "OBS_CRASH_AT=postgres.before_commit",
        "For tests: the process kills itself at this commit point.",
    ),
)
"""Every variable that `load` and the packaged pipeline file read."""


def environment() -> Mapping[str, str]:
    """The process's environment, for `load` and for ``{{ env.NAME }}`` in pipeline files."""
    return os.environ


def load(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Args:
        env: the process's environment by default.

    Raises:
        ConfigurationError: a variable does not have the form that it must have.
    """
    if env is None:
        env = environment()
    # An empty variable counts as unset: container tools pass unset variables on as empty texts.
    env = {name: value for name, value in env.items() if value}
    # Here, so that the environment is read in a single module.
    crash.arm(env.get("OBS_CRASH_AT"))
    try:
        return Settings(
            data_dir=Path(env.get("OBS_DATA_DIR", ".obs")).absolute(),
            postgres=_postgres(env),
            s3=_s3(env),
            webhook=_webhook(env),
            elasticsearch=_elasticsearch(env),
            splunk=_splunk(env),
            datadog=_datadog(env),
            aws_region=env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "",
            hash_key=_secret(env, "OBS_HASH_KEY"),
            api=_api(env),
            receive=_receive(env),
        )
    except ValidationError as error:
        # pydantic's whole message would repeat the value, which can be a password.
        first = error.errors()[0]
        field = str(first["loc"][-1])
        fields = {
            ApiSettings.__name__: _API,
            ReceiveSettings.__name__: _RECEIVE,
            DatadogSettings.__name__: _DATADOG,
            ElasticsearchSettings.__name__: _ELASTICSEARCH,
            SplunkSettings.__name__: _SPLUNK,
        }.get(error.title, _POSTGRES)
        # An item of a list is named by its number, behind the field.
        field = str(next((part for part in first["loc"] if part in fields), field))
        variable = fields.get(field, field)
        raise ConfigurationError(f"{variable} is wrong: {first['msg']}") from None


def _secret(env: Mapping[str, str], name: str) -> SecretStr | None:
    if name not in env:
        return None
    return SecretStr(env[name])


_POSTGRES = {
    "host": "POSTGRES_HOST",
    "port": "POSTGRES_PORT",
    "database": "POSTGRES_DB",
    "user": "POSTGRES_USER",
    "password": "POSTGRES_PASSWORD",
}
"""Field of `PostgresSettings` → its variable."""


def _postgres(env: Mapping[str, str]) -> PostgresSettings | None:
    if "POSTGRES_HOST" not in env:
        return None
    return PostgresSettings.model_validate(
        {field: env[name] for field, name in _POSTGRES.items() if name in env}
    )


_API = {
    "host": "OBS_API_HOST",
    "port": "OBS_API_PORT",
    "auth": "OBS_API_AUTH",
    "proxies": "OBS_API_PROXIES",
    "hosts": "OBS_API_HOSTS",
    "tls_certificate": "OBS_API_TLS_CERTIFICATE",
    "tls_key": "OBS_API_TLS_KEY",
    "tokens": "OBS_TOKENS",
    "environment": "OBS_ENVIRONMENT",
    "dagster_url": "OBS_DAGSTER_URL",
}
"""Field of `ApiSettings` → its variable."""


def _api(env: Mapping[str, str]) -> ApiSettings:
    return ApiSettings.model_validate(
        {field: env[name] for field, name in _API.items() if name in env}
    )


_RECEIVE = {
    "host": "OBS_RECEIVE_HOST",
    "port": "OBS_RECEIVE_PORT",
    "auth": "OBS_RECEIVE_AUTH",
    "hosts": "OBS_RECEIVE_HOSTS",
    "tls_certificate": "OBS_RECEIVE_TLS_CERTIFICATE",
    "tls_key": "OBS_RECEIVE_TLS_KEY",
}
"""Field of `ReceiveSettings` → its variable."""


def _receive(env: Mapping[str, str]) -> ReceiveSettings:
    return ReceiveSettings.model_validate(
        {field: env[name] for field, name in _RECEIVE.items() if name in env}
    )


_ELASTICSEARCH = {"url": "ELASTICSEARCH_URL", "api_key": "ELASTICSEARCH_API_KEY"}
"""Field of `ElasticsearchSettings` → its variable."""


def _elasticsearch(env: Mapping[str, str]) -> ElasticsearchSettings | None:
    if "ELASTICSEARCH_URL" not in env:
        return None
    return ElasticsearchSettings.model_validate(
        {field: env[name] for field, name in _ELASTICSEARCH.items() if name in env}
    )


_SPLUNK = {"url": "SPLUNK_HEC_URL", "token": "SPLUNK_HEC_TOKEN"}
"""Field of `SplunkSettings` → its variable."""


def _splunk(env: Mapping[str, str]) -> SplunkSettings | None:
    if "SPLUNK_HEC_URL" not in env:
        return None
    return SplunkSettings.model_validate(
        {field: env[name] for field, name in _SPLUNK.items() if name in env}
    )


_DATADOG = {"api_key": "DD_API_KEY", "site": "DD_SITE"}
"""Field of `DatadogSettings` → its variable."""


def _datadog(env: Mapping[str, str]) -> DatadogSettings | None:
    if "DD_API_KEY" not in env:
        return None
    return DatadogSettings.model_validate(
        {field: env[name] for field, name in _DATADOG.items() if name in env}
    )


def _s3(env: Mapping[str, str]) -> S3Settings | None:
    if "AWS_S3_BUCKET" not in env:
        return None
    return S3Settings(
        bucket=env["AWS_S3_BUCKET"],
        region=env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1",
        endpoint_url=env.get("AWS_ENDPOINT_URL_S3"),
    )


def _is_on(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").lower() in {"1", "true", "yes", "on"}


def _webhook(env: Mapping[str, str]) -> WebhookSettings:
    return WebhookSettings(
        url=_secret(env, "WEBHOOK_URL"),
        auth_token=_secret(env, "WEBHOOK_AUTH_TOKEN"),
        api_key=_secret(env, "WEBHOOK_API_KEY"),
        hmac_secret=_secret(env, "WEBHOOK_HMAC_SECRET"),
        allow_private=_is_on(env, "OBS_WEBHOOK_ALLOW_PRIVATE"),
        send_old=_is_on(env, "OBS_WEBHOOK_SEND_OLD"),
    )
