"""Every environment variable of iidq, read once and checked at the start.

Each field's description has meaning, unit and consequence; ``iidq settings`` prints them as the README's table. A bad
value stops the start with one line that names the variable, the faulty part and the expected form. Only numbers are
shown, because any other value can hold a secret by mistake. A ``.env`` file in the working directory is read, too;
environment variables take precedence.
"""

import os
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, get_args

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

from iidq.errors import SettingsFault
from iidq.setting_values import checks
from iidq.setting_values.checks import REDIS_USES, ChainAccount
from iidq.setting_values.database_url import SCHEMA_FORM, is_schema_name, read_database_url
from iidq.setting_values.redis_url import parse_redis_url

_RPC_URLS = re.compile(r"RPC_URLS_([1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?")

WebUrl = Annotated[str, AfterValidator(checks.web_url)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode]


def _secret(check: Callable[[str], object], value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        check(value.get_secret_value())
    return value


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
        description="schema of iidq's tables, views and functions, in the exact spelling of Postgres; `iidq migrate` "
        "creates a missing one. Prisma's `?schema=` in `DATABASE_URL` means the same",
    )
    rpc_url: WebUrl | None = Field(
        None,
        description="Ethereum JSON-RPC endpoint of the default chain. `demo` and `up` start their own without it",
    )
    rpc_urls: dict[int, tuple[WebUrl, ...]] = Field(
        {},
        description="`RPC_URLS_<chainId>`: endpoints of further chains, comma-separated; later ones are fallbacks. "
        "They replace an unavailable `RPC_URL` of the same chain: from the start if the list contains `RPC_URL`, else "
        "once its chain id is known",
    )
    redis_url: str | None = Field(
        None,
        description="optional accelerator, may be unavailable at any moment: `redis://`, `rediss://`, `unix://`, "
        "`redis+sentinel://HOST,HOST/SERVICE` or `redis+cluster://HOST,HOST`",
    )
    redis_use: Annotated[CommaSeparated, AfterValidator(checks.redis_uses)] = Field(
        REDIS_USES,
        description="parts that Redis accelerates: `wakeups` of workers, live `progress`, reads of ended `jobs`, "
        "shared `caches` of manifests and verdicts, shared rate `limits`",
    )
    redis_timeout_ms: int = Field(50, ge=1, le=5000, description="longest wait for Redis, in ms")
    redis_bull_keys: Literal["on", "off"] = Field(
        "off",
        description="`on` shows the queue in Redis under BullMQ's keys (`bull:verification:wait`, …), for `redis-cli` "
        "and Bull Board, read-only",
    )
    host: str = Field(
        "127.0.0.1",
        description="address or host name of this machine on which the API listens; `::1` and `[::1]` are the same",
    )
    port: int = Field(3001, ge=0, le=65535, description="port on which the API listens; 0 = any free port")
    web_concurrency: int = Field(1, ge=1, le=64, description="API processes that `iidq serve` runs on one port")
    api_key: SecretStr | None = Field(
        None,
        description="the key of operators and services, sent as `x-api-key` or `Authorization: Bearer`",
    )
    api_key_scope: Literal["operate", "all"] = Field(
        "operate",
        description="`all` requires the key everywhere but health; `operate` for cancel, retry, batch, pause, resume, "
        "metrics and the operations pages",
    )
    private_key: SecretStr | None = Field(
        None, description="if set, proofs are signed by the service: an Ethereum account's key, `0x` and 64 hex digits"
    )

    webhook_secret: SecretStr | None = Field(
        None,
        description="signs webhooks; without it `callbackUrl` is refused: `whsec_` and the base64 of 24 to 64 random "
        "bytes. Several, separated by spaces, for a rotation. The API and all workers need the secret",
    )
    webhook_timeout_seconds: float = Field(15, ge=0.1, le=120, description="a receiver's time to answer a webhook")

    max_retry_attempts: int = Field(3, ge=1, le=100, description="attempts in all before a job fails")
    retry_backoff_ms: int = Field(
        5000, ge=0, le=300_000, description="first retry delay in ms; doubled each time, full jitter, at most 5 min"
    )
    worker_concurrency: int = Field(3, ge=1, le=10_000, description="jobs at a time per worker process")
    job_lease_seconds: float = Field(
        30, ge=0.5, le=3600, description="a worker silent for longer loses its jobs to other workers"
    )
    job_timeout_seconds: float = Field(120, gt=0, le=86_400, description="deadline of one attempt")
    drain_timeout_seconds: float = Field(
        25,
        ge=0,
        le=3600,
        description="time for running jobs of a stopping worker, then they return to the queue; and for requests of a "
        "stopping API, then 503",
    )
    shutdown_delay_seconds: float = Field(
        0,
        ge=0,
        le=300,
        description="time in which a stopping API still accepts connections, with `/readyz` at 503, so that load "
        "balancers choose other processes first",
    )
    poll_interval_seconds: float = Field(
        5,
        ge=0.05,
        le=300,
        description="interval of polling, jittered; the only wake-up behind a transaction pooler",
    )
    retention_completed_days: float | None = Field(
        7, ge=0, le=36_500, description="age in days at which completed and cancelled jobs are deleted"
    )
    retention_completed_count: int | None = Field(
        None, ge=0, description="most completed and cancelled jobs kept; unset = no limit"
    )
    retention_failed_days: float | None = Field(
        30, ge=0, le=36_500, description="age in days at which failed jobs are deleted"
    )

    ipfs_gateways: Annotated[tuple[WebUrl, ...], NoDecode, AfterValidator(checks.gateways)] = Field(
        ("https://ipfs.io", "https://dweb.link", "https://gateway.pinata.cloud"),
        description="comma-separated base URLs; `https://ipfs.io` is read at `https://ipfs.io/ipfs/<cid>`",
    )
    max_upload_bytes: int = Field(1 << 30, ge=1, description="largest uploaded file; a larger one gets 413")
    max_manifest_bytes: int = Field(1 << 20, ge=1, description="largest manifest; a larger one fails the job")
    fetch_allow_private: CommaSeparated = Field(
        (), description="private CIDRs or hosts that manifest and callback URLs may reach, on any port"
    )
    rpc_allowed_urls: Annotated[tuple[WebUrl, ...], NoDecode] = Field(
        (), description="further endpoints allowed as a request's `rpcUrl`, besides the configured ones"
    )
    result_cache_seconds: float = Field(
        10, ge=0, le=3600, description="time in which a verdict of verify is reused for the same inputs; 0 = never"
    )
    rpc_block_tag: Literal["latest", "safe", "finalized"] = Field(
        "latest", description="block of all reads of a job; a reorg cannot undo `finalized`"
    )
    registry_start_block: int | None = Field(None, ge=0, description="earliest block of the search for a registration")
    default_registry: ChainAccount | None = Field(
        None,
        description="registry that the verification page proposes: an address, or `eip155:<chainId>:0x…` (CAIP-10) "
        "for another chain than the default one",
    )

    sync_fallback: Literal["on", "off"] = Field(
        "on",
        description="while Postgres is away or not migrated, submissions are processed at once and answered with the "
        "result; `off` = 503 and `Retry-After` instead",
    )
    request_idle_seconds: float = Field(
        30,
        ge=0.05,
        le=3600,
        description="longest time for a request's headers, and for each pause in a body; then 408",
    )
    keep_alive_seconds: float = Field(
        75,
        ge=0.05,
        le=3600,
        description="time for which a connection stays open between requests; longer than the client's or load "
        "balancer's own time, or requests meet a closed connection",
    )
    max_watchers: int = Field(
        10_000, ge=0, description="most clients per API process that wait for a job (`Prefer: wait`, events); then 503"
    )
    rate_limit_submit_per_minute: int = Field(
        100,
        ge=0,
        description="submissions per client address (IPv6: per /64), over all API processes; a batch counts once; "
        "0 = off",
    )
    rate_limit_read_per_minute: int = Field(
        1000, ge=0, description="other requests per client address, except health and metrics; 0 = off"
    )
    rate_limit_key_factor: int = Field(
        10,
        ge=0,
        le=1_000_000,
        description="multiplier of both limits for requests with the API key, counted per key, not per address; "
        "0 = without limit",
    )
    trusted_proxies: Annotated[CommaSeparated, AfterValidator(checks.networks)] = Field(
        (),
        description="addresses or CIDRs of proxies with trusted `X-Forwarded-For` and `X-Forwarded-Prefix`; else the "
        "client is the connection's peer",
    )
    root_path: Annotated[str, AfterValidator(checks.root_path)] = Field(
        "",
        description="path of the service at a reverse proxy, such as `/iidq`, at the start of all URLs in replies. "
        "`X-Forwarded-Prefix` of a trusted proxy replaces this path",
    )
    cors_origins: Annotated[CommaSeparated, AfterValidator(checks.origins)] = Field(
        ("*",),
        description="origins of web pages that may read and submit: `*` = all, `none` = none, or "
        "`https://app.example.org`, comma-separated; pages of named origins may also cancel, retry and pause",
    )
    worker_metrics_port: int | None = Field(
        None, ge=1, le=65535, description="port of a worker's `GET /metrics` at `HOST`; unset = no metrics of workers"
    )
    otel_exporter_otlp_endpoint: WebUrl | None = Field(
        None, description="OpenTelemetry collector for traces (OTLP over HTTP); needs the extra `otel`"
    )
    otel_traces_exporter: Literal["otlp", "console", "none"] | None = Field(
        None, description="exporter of traces; `otlp` once an endpoint is set, `none` = no traces"
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
        return checks.split_list(value) if isinstance(value, str) else value

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
        """Names of parameters of ``DATABASE_URL`` that are left out, because libpq has no such parameter."""
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
    def _api_key(cls, value: SecretStr | None) -> SecretStr | None:
        return _secret(checks.api_key, value)

    @field_validator("private_key")
    @classmethod
    def _private_key(cls, value: SecretStr | None) -> SecretStr | None:
        return _secret(checks.private_key, value)

    @field_validator("webhook_secret")
    @classmethod
    def _webhook_secret(cls, value: SecretStr | None) -> SecretStr | None:
        return _secret(checks.signing_keys, value)

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: str | None) -> str | None:
        if value is not None:
            parse_redis_url(value)
        return value

    @field_validator("default_registry", mode="before")
    @classmethod
    def _default_registry(cls, value: Any) -> Any:
        return checks.chain_account(value) if isinstance(value, str) else value


def load_settings(*require: str, **overrides: Any) -> Settings:
    """Read the environment; raise :class:`SettingsFault` with one line about the first fault.

    ``require`` names fields that the command needs; ``overrides`` come from the command line.
    """
    try:
        settings = Settings(
            rpc_urls=_rpc_urls_by_chain(),
            **{name: value for name, value in overrides.items() if value is not None},
        )
    except ValidationError as error:
        raise SettingsFault(_one_line(error)) from None
    except SettingsError:
        # pydantic-settings reads RPC_URLS as the mapping itself, in JSON.
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
        int(match[1]): checks.split_list(value)
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
    """Return a bad value that is a number for a numeric setting; any other can hold a secret."""
    kind = Settings.model_fields[name].annotation if name in Settings.model_fields else None
    is_numeric = bool({int, float} & {kind, *get_args(kind)})
    return value if is_numeric and _NUMBER.fullmatch(value) else "(hidden)"


def settings_table() -> str:
    """Return the README's table of environment variables: name, default, meaning."""
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
