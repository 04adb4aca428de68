"""Every environment variable iidq reads, in one place, read once and checked at the start.

Each field says what it means, in which unit, and what follows from changing it; the README's table is made
from these texts (``iidq settings``). A bad value stops the start with one line that names the variable, the faulty part
and what was expected. The value itself is shown only where it is a number: a secret can be in any other, by mistake.
A ``.env`` file in the working directory is read too; real environment variables win over it.
"""

import os
import re
from ipaddress import ip_network
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from iidq.database.database_url import SCHEMA_FORM, is_schema_name, read_database_url
from iidq.errors import SettingsFault
from iidq.redis.redis_url import parse_redis_url
from iidq.web.guard.proxies import OWN_PATHS, parse_prefix
from iidq.webhooks.signing import signing_keys

_RPC_URLS = re.compile(r"RPC_URLS_([1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?")
# As browsers send it: lower case, no path, no default port (RFC 6454, section 6.2).
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
# CAIP-10 in the namespace eip155, or the address alone.
_CHAIN_ACCOUNT = re.compile(r"(?:eip155:([1-9][0-9]{0,15}):)?(0x[0-9a-fA-F]{40})")
_PRIVATE_KEY = re.compile(r"(?:0x)?[0-9a-fA-F]{64}")
# SEC 2, section 2.4.1: a key lies between zero and the order of secp256k1's group.
_CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


_WEB_URL = "an http:// or https:// URL"


def _web_url(text: str) -> str:
    if not text.lower().startswith(("http://", "https://")):
        raise ValueError(_WEB_URL)
    from httpx import URL, InvalidURL

    try:
        _ = urlsplit(text).port
    except ValueError:
        raise ValueError(f"{_WEB_URL}; its host or port is malformed") from None
    try:
        host = URL(text).host
    except (InvalidURL, ValueError):
        raise ValueError(f"{_WEB_URL}; its host is malformed, or a character of it must be percent-encoded") from None
    if not host:
        raise ValueError(f"{_WEB_URL}; its host is missing")
    return text


WebUrl = Annotated[str, AfterValidator(_web_url)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode]
REDIS_USES = ("wakeups", "progress", "jobs", "caches", "limits")


class ChainAccount(NamedTuple):
    """An account on a chain; ``chain_id`` None means the default chain."""

    chain_id: int | None
    address: str


class Settings(BaseSettings):
    """The whole configuration of a process; immutable once read."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    database_url: str | None = Field(
        None,
        description="libpq URL of Postgres; several hosts allowed, and parameters of Prisma and node-postgres. `demo` "
        "and `up` start their own without it",
    )
    database_schema: str = Field(
        "public",
        description="schema of iidq's tables, views and functions, exactly as Postgres has it; `iidq migrate` makes it "
        "where it is missing. Prisma's `?schema=` in `DATABASE_URL` says the same",
    )
    rpc_url: str | None = Field(
        None,
        description="Ethereum JSON-RPC endpoint of the default chain. `demo` and `up` start their own without it",
    )
    rpc_urls: dict[int, tuple[WebUrl, ...]] = Field(
        {},
        description="`RPC_URLS_<chainId>`: endpoints of further chains, comma-separated; later ones are fallbacks. "
        "With `RPC_URL` among them they stand in for it from the start, else once it has told its chain",
    )
    redis_url: str | None = Field(
        None,
        description="optional accelerator, which may be away at any moment: `redis://`, `rediss://`, `unix://`, "
        "`redis+sentinel://HOST,HOST/SERVICE` or `redis+cluster://HOST,HOST`",
    )
    redis_use: CommaSeparated = Field(
        REDIS_USES,
        description="what Redis accelerates: `wakeups` of workers, live `progress`, reads of ended `jobs`, shared "
        "`caches` of manifests and verdicts, shared rate `limits`",
    )
    redis_timeout_ms: int = Field(50, ge=1, le=5000, description="the longest that anything waits for Redis, in ms")
    redis_bull_keys: Literal["on", "off"] = Field(
        "off",
        description="`on` shows the queue in Redis under BullMQ's keys (`bull:verification:wait`, …), for `redis-cli` "
        "and Bull Board, read-only",
    )
    host: str = Field(
        "127.0.0.1",
        description="where the API listens: an address of this machine (`::1` and `[::1]` are one), or a name of it",
    )
    port: int = Field(3001, ge=0, le=65535, description="where the API listens; 0 = any free port")
    web_concurrency: int = Field(1, ge=1, le=64, description="API processes that `iidq serve` runs on one port")
    api_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="the one key that operators and services present as `x-api-key` or `Authorization: Bearer`",
    )
    api_key_scope: Literal["operate", "all"] = Field(
        "operate",
        description="`all` asks for the key everywhere but health; `operate` for cancel, retry, batch, pause, resume, "
        "metrics and the operations pages",
    )
    private_key: SecretStr | None = Field(
        None, description="if set, proofs are signed by the service: an Ethereum account's key, `0x` and 64 hex digits"
    )

    webhook_secret: SecretStr | None = Field(
        None,
        description="signs webhooks; without it `callbackUrl` is refused: `whsec_` and the base64 of 24 to 64 random "
        "bytes. Several, separated by spaces, for a rotation. The API and all workers need it",
    )
    webhook_timeout_seconds: float = Field(15, ge=0.1, le=120, description="a receiver's time to answer a webhook")

    max_retry_attempts: int = Field(3, ge=1, le=100, description="attempts in all before a job fails")
    retry_backoff_ms: int = Field(
        5000, ge=0, le=300_000, description="first retry delay in ms; doubles, full jitter, capped at 5 min"
    )
    worker_concurrency: int = Field(3, ge=1, le=10_000, description="jobs at a time per worker process")
    job_lease_seconds: float = Field(
        30, ge=0.5, le=3600, description="a worker that is silent for this long loses its jobs to another"
    )
    job_timeout_seconds: float = Field(120, gt=0, le=86_400, description="deadline of one attempt")
    drain_timeout_seconds: float = Field(
        25,
        ge=0,
        le=3600,
        description="how long a stopping worker lets its jobs run before it gives them back, and a stopping API its "
        "requests before it answers 503",
    )
    shutdown_delay_seconds: float = Field(
        0,
        ge=0,
        le=300,
        description="how long a stopping API still accepts connections, with `/readyz` at 503, so that load balancers "
        "look elsewhere first",
    )
    poll_interval_seconds: float = Field(
        5,
        ge=0.05,
        le=300,
        description="polling floor, jittered; the only wake-up behind a transaction pooler",
    )
    retention_completed_days: float | None = Field(
        7, ge=0, le=36_500, description="completed and cancelled jobs are kept so long"
    )
    retention_completed_count: int | None = Field(None, ge=0, description="and at most so many of them")
    retention_failed_days: float | None = Field(30, ge=0, le=36_500, description="failed jobs are kept so long")

    ipfs_gateways: CommaSeparated = Field(
        ("https://ipfs.io", "https://dweb.link", "https://gateway.pinata.cloud"),
        description="comma-separated bases; `https://ipfs.io` is asked for `https://ipfs.io/ipfs/<cid>`",
    )
    max_upload_bytes: int = Field(1 << 30, ge=1, description="the uploaded file's own bytes; more is 413")
    max_manifest_bytes: int = Field(1 << 20, ge=1, description="a longer manifest fails the job")
    fetch_allow_private: CommaSeparated = Field(
        (), description="CIDRs or hosts that manifest and callback URLs may reach although private, on any port"
    )
    rpc_allowed_urls: CommaSeparated = Field(
        (), description="what a request's `rpcUrl` may be, besides the configured ones"
    )
    result_cache_seconds: float = Field(
        10, ge=0, le=3600, description="how long a verify verdict is reused for the same inputs; 0 = never"
    )
    rpc_block_tag: Literal["latest", "safe", "finalized"] = Field(
        "latest", description="which block every read of a job is pinned to; `finalized` cannot be undone by a reorg"
    )
    registry_start_block: int | None = Field(None, ge=0, description="earliest block to search for a registration")
    default_registry: ChainAccount | None = Field(
        None,
        description="registry that the verification page fills in: an address, or `eip155:<chainId>:0x…` (CAIP-10) "
        "for a chain other than the default one",
    )

    sync_fallback: Literal["on", "off"] = Field(
        "on",
        description="while Postgres is away or not migrated, submissions are processed at once and answered with the "
        "result; `off` = they are answered with 503 and `Retry-After`",
    )
    request_idle_seconds: float = Field(
        30,
        ge=0.05,
        le=3600,
        description="a client's time for a request's headers, and for each pause in its body; longer is 408",
    )
    keep_alive_seconds: float = Field(
        75,
        ge=0.05,
        le=3600,
        description="how long a connection stays open between requests; more than the client's or load balancer's own "
        "time, or a request meets the close",
    )
    max_watchers: int = Field(
        10_000, ge=0, description="clients per API process that wait for a job (`Prefer: wait`, events); more get 503"
    )
    rate_limit_submit_per_minute: int = Field(
        100,
        ge=0,
        description="submissions per client address (IPv6: per /64), over all API processes; a batch is one; 0 = off",
    )
    rate_limit_read_per_minute: int = Field(
        1000, ge=0, description="all other requests per client address, but health and metrics; 0 = off"
    )
    rate_limit_key_factor: int = Field(
        10,
        ge=0,
        le=1_000_000,
        description="whoever presents the API key may do so many times as much, counted per key whatever the address; "
        "0 = without limit",
    )
    trusted_proxies: CommaSeparated = Field(
        (),
        description="addresses or CIDRs of proxies whose `X-Forwarded-For` and `X-Forwarded-Prefix` are believed; else "
        "a client is its peer",
    )
    root_path: str = Field(
        "",
        description="path under which a reverse proxy offers the service, such as `/iidq`; URLs in replies begin with "
        "it. `X-Forwarded-Prefix` of a trusted proxy takes its place",
    )
    cors_origins: CommaSeparated = Field(
        ("*",),
        description="origins whose web pages may read and submit: `*` = all, `none` = none, or "
        "`https://app.example.org`, comma-separated; pages of origins named here may also cancel, retry and pause",
    )
    worker_metrics_port: int | None = Field(
        None, ge=1, le=65535, description="a worker answers `GET /metrics` at `HOST` on this port; unset = it does not"
    )
    otel_exporter_otlp_endpoint: WebUrl | None = Field(
        None, description="OpenTelemetry collector (OTLP over HTTP) that traces go to; needs the extra `otel`"
    )
    otel_traces_exporter: Literal["otlp", "console", "none"] | None = Field(
        None, description="where traces go; `otlp` once an endpoint is set, `none` = nowhere"
    )
    log_format: Literal["text", "json"] | None = Field(None, description="`text` on a terminal, else `json`")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is logged")

    @field_validator(
        "ipfs_gateways",
        "fetch_allow_private",
        "rpc_allowed_urls",
        "trusted_proxies",
        "cors_origins",
        "redis_use",
        mode="before",
    )
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        return _split(value) if isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _unicode_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("UTF-8 text") from None
        return value

    _ignored_parameters: tuple[str, ...] = PrivateAttr(())

    @property
    def ignored_parameters(self) -> tuple[str, ...]:
        """Names of the parameters of ``DATABASE_URL`` that mean nothing to libpq and are left out."""
        return self._ignored_parameters

    @model_validator(mode="wrap")
    @classmethod
    def _read_database_url(cls, values: dict[str, Any], build: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(values.get("database_url"), str):
            return build(values)
        try:
            found = read_database_url(values["database_url"])
        except ValueError as fault:
            raise ValueError(f"DATABASE_URL=(hidden) cannot be used; expected {fault}") from None
        schema = {} if found.schema is None else {"database_schema": found.schema}
        if found.schema not in (None, values.get("database_schema", found.schema)):
            raise ValueError("DATABASE_SCHEMA and ?schema= of DATABASE_URL differ; expected one of them, or the same")
        settings = build({**values, "database_url": found.libpq, **schema})
        settings._ignored_parameters = found.ignored
        return settings

    @field_validator("database_schema")
    @classmethod
    def _own_schema(cls, value: str) -> str:
        if not is_schema_name(value):
            raise ValueError(SCHEMA_FORM)
        return value

    @field_validator("api_key")
    @classmethod
    def _presentable_key(cls, value: SecretStr | None) -> SecretStr | None:
        key = "" if value is None else value.get_secret_value()
        if not key.isprintable() or key != key.strip():
            raise ValueError("one line of printable characters, without blanks around it")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_place(cls, value: str | None) -> str | None:
        if value is not None:
            parse_redis_url(value)
        return value

    @field_validator("redis_use")
    @classmethod
    def _known_uses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if set(value) - set(REDIS_USES):
            raise ValueError(f"a comma-separated list of {', '.join(REDIS_USES)}")
        return value

    @field_validator("rpc_url", "ipfs_gateways", "rpc_allowed_urls")
    @classmethod
    def _web_urls(cls, value: Any) -> Any:
        for url in (value,) if isinstance(value, str) else value or ():
            _web_url(url)
        return value

    @field_validator("default_registry", mode="before")
    @classmethod
    def _chain_account(cls, value: Any) -> Any:
        if isinstance(value, str):
            match = _CHAIN_ACCOUNT.fullmatch(value)
            if match is None:
                raise ValueError("0x and 40 hex digits, or eip155:<chainId>:0x…")
            return ChainAccount(int(match[1]) if match[1] else None, match[2])
        return value

    @field_validator("private_key")
    @classmethod
    def _curve_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            text = value.get_secret_value()
            if not _PRIVATE_KEY.fullmatch(text) or not 0 < int(text, 16) < _CURVE_ORDER:
                raise ValueError("0x and the 64 hex digits of a secp256k1 private key")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _webhook_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            signing_keys(value.get_secret_value())
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            try:
                # 10.1.2.3/8 is meant as 10.0.0.0/8.
                ip_network(item, strict=False)
            except ValueError:
                raise ValueError("a comma-separated list of addresses or CIDRs") from None
        return value

    @field_validator("root_path")
    @classmethod
    def _path_prefix(cls, value: str) -> str:
        prefix = parse_prefix(value)
        if prefix in OWN_PATHS:
            raise ValueError("a path that is none of the service's own, such as /iidq")
        return prefix

    @field_validator("cors_origins")
    @classmethod
    def _known_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        alone = value in (("*",), ("none",))
        if not value or not (alone or all(_ORIGIN.fullmatch(item) for item in value)):
            raise ValueError("*, none, or a comma-separated list of origins such as https://app.example.org")
        return value

    @field_validator("ipfs_gateways")
    @classmethod
    def _some_gateway(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("at least one gateway")
        return tuple(url.rstrip("/") for url in value)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def load_settings(*require: str, **overrides: Any) -> Settings:
    """Read the environment; raise :class:`SettingsFault` with one line that says what to mend.

    ``require`` names fields that this command cannot do without; ``overrides`` come from the command line.
    """
    try:
        settings = Settings(
            rpc_urls=_rpc_urls_by_chain(),
            **{name: value for name, value in overrides.items() if value is not None},
        )
    except ValidationError as error:
        raise SettingsFault(_one_line(error)) from None
    except SettingsError:
        # pydantic-settings takes RPC_URLS for the mapping itself, in JSON.
        raise SettingsFault("RPC_URLS=(hidden) cannot be used; expected RPC_URLS_<chainId>, one per chain") from None
    except (UnicodeDecodeError, OSError):
        raise SettingsFault(".env cannot be read; expected a file of UTF-8 text") from None
    for name in require:
        if getattr(settings, name) is None:
            raise SettingsFault(f"{name.upper()} is not set; expected {_expected(name)}")
    return settings


def _rpc_urls_by_chain() -> dict[int, tuple[str, ...]]:
    environment = {**dotenv_values(".env"), **os.environ}
    return {
        int(match[1]): _split(value)
        for name, value in environment.items()
        if value and (match := _RPC_URLS.fullmatch(name))
    }


def _expected(name: str) -> str:
    return (Settings.model_fields[name].description or "a value").split(".")[0]


def _one_line(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False, include_input=True)[0]
    expected = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not fault["loc"]:
        # It is about several variables, and names them.
        return expected
    name = str(fault["loc"][0])
    if name == "rpc_urls":
        name = f"rpc_urls_{fault['loc'][1]}"
    shown = _shown(name, str(fault.get("input", "")))
    return f"{name.upper()}={shown} cannot be used; expected {expected}"


def _shown(name: str, value: str) -> str:
    """The bad value where it is a number, as it should be; any other can hold a secret."""
    kind = Settings.model_fields[name].annotation if name in Settings.model_fields else None
    is_numeric = bool({int, float} & {kind, *get_args(kind)})
    return value if is_numeric and _NUMBER.fullmatch(value) else "(hidden)"


def settings_table() -> str:
    """The README's table of environment variables: name, default, meaning."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        variable = "RPC_URLS_<chainId>" if name == "rpc_urls" else name.upper()
        rows.append(f"| `{variable}` | {_shown_default(field.default)} | {field.description} |")
    return "\n".join(rows)


def _shown_default(default: Any) -> str:
    match default:
        case None | () | {} | "":
            return "–"
        case tuple():
            return "`" + ",".join(default) + "`"
        case _:
            return f"`{default}`"
