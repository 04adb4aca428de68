"""``DATABASE_URL``: a URL for libpq, made from a URL with any driver's parameters.

Parameters of other drivers are translated, or left out if in :data:`IGNORED`. An unknown name is a fault, because the
name may be a misspelt ``sslmode`` or the rest of a password. A fault names the wrong part and never quotes the URL.
"""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

SCHEMA_FORM: Final = "a schema's name of at most 63 bytes, not beginning with pg_: letters, digits, blanks and _ - . \""
FORM: Final = "a URL that begins with postgresql://"
IGNORED: Final = frozenset({
    # Prisma
    "connection_limit", "pool_timeout", "pgbouncer", "statement_cache_size", "socket_timeout", "single_use_connections",
    "max_connection_lifetime", "max_idle_connection_lifetime", "sslidentity",
    # node-postgres and its pool
    "uselibpqcompat", "max", "min", "idleTimeoutMillis", "connectionTimeoutMillis", "maxUses", "maxLifetimeSeconds",
    "allowExitOnIdle", "statement_timeout", "query_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
    "keepAlive", "keepAliveInitialDelayMillis", "binary", "encoding",
    # pgx and its pool, sqlx
    "pool_max_conns", "pool_min_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time", "pool_health_check_period",
    "default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity", "statement-cache-capacity",
    # postgres.js, Rails
    "idle_timeout", "max_lifetime", "fetch_types", "pool", "prepared_statements", "reaping_frequency",
    "checkout_timeout",
    # SQLAlchemy with asyncpg, Django, Supabase
    "pool_size", "max_overflow",
    "prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback", "command_timeout",
    "conn_max_age", "conn_health_checks", "supa", "workaround",
})  # fmt: skip
_TRANSLATED: Final = {"schema", "ssl", "sslaccept"}

# Without the signs that mean something else within SQL: quotes of literals and bodies, parameters.
_SCHEMA_NAME = re.compile(r'[\w .\-"]+')
_SCHEME = re.compile(r"postgres(?:ql(?:\+\w+)?)?://")
# As libpq reads a URL: user and password end at the first @ without a / before.
_PARTS = re.compile(r"([^@/]*@)?([^/?]*)(/[^?]*)?(?:\?(.*))?")
_RESERVED = "a reserved character (% / ? # @ : and blanks) of its user, password or database must be percent-encoded"
# node-postgres and asyncpg verify chain and host.
_SSL_MODES = {"true": "verify-full", "1": "verify-full", "false": "disable", "0": "disable"}
_MODES_WITH_TLS = ("require", "no-verify", "verify-ca", "verify-full")
# With sslmode=require libpq verifies, too, where a root certificate exists, such as ~/.postgresql/root.crt.
_NO_ROOT_CERTIFICATE = "/dev/null/none"
_SYSTEM_ROOT_CERTIFICATES = "system"
_FILES = ("passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir")
_INTEGERS = (
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
)  # fmt: skip
_NOT_GIVEN_IF_EMPTY = _TRANSLATED.union(_INTEGERS)
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
# No valid address. With user and password libpq reads neither the account's name nor the passfile.
_NOWHERE = {"host": "", "hostaddr": "none", "port": "1", "user": "x", "password": "x", "dbname": "x"}
# Defaults missing in libpq's list of options, for which libpq takes no empty text.
_DEFAULTS = {"sslcertmode": "allow", "min_protocol_version": "3.0", "max_protocol_version": "latest"}
_EXPECTED = {
    "sslmode": "disable, allow, prefer, require, no-verify, verify-ca or verify-full",
    "channel_binding": "disable, prefer or require",
    "target_session_attrs": "any, read-write, read-only, primary, standby or prefer-standby",
    "service": "a service of the service file",
}


class DatabaseUrl(NamedTuple):
    """A URL that was read."""

    libpq: str
    """The URL for libpq; reading that URL again gives the same."""
    schema: str | None
    """The schema of Prisma's ``?schema=``; None without."""
    ignored: tuple[str, ...]
    """Names of parameters that were left out."""


def read_database_url(text: str) -> DatabaseUrl:
    """Return the parts of the URL; raise :class:`ValueError` with the expected form."""
    text = text.strip()
    try:
        unquote(text, errors="strict").encode()
    except UnicodeError:
        raise ValueError(f"{FORM}; it must be UTF-8 text, also where it is percent-encoded") from None
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise ValueError(FORM)
    if re.search(r"[\x00-\x20\x7f]|%00|%(?![0-9a-fA-F]{2})", text):
        raise ValueError(f"{FORM}; {_RESERVED}")
    parts = _PARTS.fullmatch(text, scheme.end())
    assert parts is not None
    user_info, hosts, path, query = (part or "" for part in parts.groups())
    if "@" in hosts + path:
        raise ValueError(f"{FORM}; {_RESERVED}")
    parameters = _read_parameters(query)
    ignored = tuple(name for name in parameters if name in IGNORED)
    schema = parameters.pop("schema", None)
    if schema is not None and not is_schema_name(schema):
        raise _wrong_value("schema", SCHEMA_FORM)
    _translate_tls(parameters)
    wanted = {name: value for name, value in parameters.items() if name not in IGNORED}
    url = f"postgresql://{user_info}{hosts}{path}"
    if wanted:
        url += "?" + "&".join(f"{name}={quote(value, safe='/,:')}" for name, value in wanted.items())
    _check_hosts(url)
    _check_values(wanted)
    return DatabaseUrl(url, schema, ignored)


def is_schema_name(name: str) -> bool:
    """Return whether ``name`` is valid for iidq's schema; Postgres cuts longer names and reserves ``pg_``."""
    return bool(_SCHEMA_NAME.fullmatch(name)) and len(name.encode()) <= 63 and not name.startswith("pg_")


def hide_options(text: str, url: str) -> str:
    """Replace words of the parameters ``options`` and ``replication`` in a server's answer by ``***``."""
    from psycopg.conninfo import conninfo_to_dict

    found = conninfo_to_dict(url)
    for word in re.split(r"[\s=\\]+", f"{found.get('options')} {found.get('replication')}"):
        if len(word) > 3:
            text = text.replace(word, "***")
    return text


def _read_parameters(query: str) -> dict[str, str]:
    from psycopg.pq import Conninfo

    known = {option.keyword.decode() for option in Conninfo.get_defaults()} | _TRANSLATED | IGNORED
    parameters = {}
    for number, part in enumerate(query.split("&"), 1):
        name, equals, value = part.partition("=")
        if not part:
            continue
        if not equals:
            raise ValueError(f"{FORM}; a parameter after the ? has no =: number {number}")
        name = unquote(name)
        if name not in known:
            close = get_close_matches(name.lower(), sorted(known), 1, 0.8)
            advice = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"{FORM}; a parameter after the ? is unknown: number {number}{advice}")
        if value or name not in _NOT_GIVEN_IF_EMPTY:
            parameters[name] = unquote(value)
    return parameters


def _translate_tls(parameters: dict[str, str]) -> None:
    ssl, accept = parameters.pop("ssl", None), parameters.pop("sslaccept", None)
    if ssl is not None:
        wanted = _SSL_MODES.get(ssl, ssl)
        mode = parameters.setdefault("sslmode", wanted)
        if mode != wanted and not (ssl in ("true", "1") and mode in _MODES_WITH_TLS):
            raise _contradiction("ssl")
        if mode == wanted == "verify-full":
            parameters.setdefault("sslrootcert", _SYSTEM_ROOT_CERTIFICATES)
    if accept not in (None, "strict", "accept_invalid_certs"):
        raise _wrong_value("sslaccept", "strict or accept_invalid_certs")
    if (accept or "sslidentity" in parameters) and "sslcert" in parameters and "sslkey" not in parameters:
        # Prisma's name for the root certificate.
        parameters.setdefault("sslrootcert", parameters.pop("sslcert"))
    mode = parameters.get("sslmode", "")
    if mode.startswith("verify") if accept == "accept_invalid_certs" else accept and mode in ("disable", "no-verify"):
        raise _contradiction("sslaccept")
    if mode == "no-verify" or accept == "accept_invalid_certs":
        if mode == "no-verify":
            parameters["sslmode"] = "require"
        parameters["sslrootcert"] = _NO_ROOT_CERTIFICATE
    elif accept == "strict":
        parameters["sslmode"] = "verify-full"
        parameters.setdefault("sslrootcert", _SYSTEM_ROOT_CERTIFICATES)


def _check_hosts(url: str) -> None:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        found = conninfo_to_dict(url)
    except ProgrammingError:
        raise ValueError(f"{FORM}; its host is malformed, or {_RESERVED}") from None
    hosts, addresses, ports = (str(found.get(name) or "").split(",") for name in ("host", "hostaddr", "port"))
    if not all(port == "" or (port.isascii() and port.isdigit() and 0 < int(port[:9]) <= 65535) for port in ports):
        raise ValueError(f"{FORM}; its port is not a number from 1 to 65535, or {_RESERVED}")
    if addresses != [""]:
        try:
            for address in filter(None, addresses):
                ip_address(address)
        except ValueError:
            raise _wrong_value("hostaddr", "IP addresses, separated by commas") from None
        if hosts != [""] and len(hosts) != len(addresses):
            raise _wrong_value("hostaddr", "as many addresses as there are hosts")
        hosts = addresses
    if len(ports) not in (1, len(hosts)):
        raise ValueError(f"{FORM}, with one port for all hosts, or one for each")


def _check_values(parameters: Mapping[str, str]) -> None:
    for name in _INTEGERS:
        if name in parameters and not _INTEGER.fullmatch(parameters[name]):
            raise _wrong_value(name, "a whole number")
    for name in _FILES:
        value = parameters.get(name)
        # A key with a colon is in an OpenSSL engine.
        elsewhere = value in (None, "", _NO_ROOT_CERTIFICATE, _SYSTEM_ROOT_CERTIFICATES) or ":" in str(value)
        if not elsewhere and not os.access(str(value), os.R_OK):
            raise _wrong_value(name, "the path of a file that can be read")
    values = {name: value for name, value in parameters.items() if name not in _NOWHERE}
    variables = _variables()
    # libpq takes other values from its variables: check the URL's values without these.
    tried = {name: default for name, default in variables.values() if name not in _NOWHERE}
    words = _libpq_words(tried)
    if _libpq_words(values) == words:
        return
    # The mode comes first: other values depend on the mode.
    for name in sorted(values, key=lambda name: name != "sslmode"):
        tried[name] = values[name]
        if _libpq_words(tried) != words:
            raise _wrong_value(name, _EXPECTED.get(name, "as libpq's documentation has it"))
    raise ValueError(f"{FORM} and goes with the environment: libpq refuses it with {', '.join(sorted(variables))}")


def _variables() -> dict[str, tuple[str, str]]:
    """Return libpq's variables that are set, each with its parameter and the parameter's default."""
    from psycopg.pq import Conninfo

    names = {option.envvar.decode(): option for option in Conninfo.get_defaults() if option.envvar}
    return {
        variable: (name := option.keyword.decode(), (option.compiled or b"").decode() or _DEFAULTS.get(name, ""))
        for variable, option in names.items()
        if variable in os.environ and variable != "PGSERVICE"
    }


def _libpq_words(parameters: Mapping[str, str]) -> str:
    """Return libpq's error for no valid address: the same words for all valid values of ``parameters``."""
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import PGconn

    attempt = PGconn.connect_start(make_conninfo(**_NOWHERE, **parameters).encode())
    try:
        return attempt.get_error_message()
    finally:
        attempt.finish()


def _wrong_value(name: str, expected: str) -> ValueError:
    return ValueError(f"{FORM} whose parameter {name} is {expected}")


def _contradiction(name: str) -> ValueError:
    return ValueError(f"{FORM} whose parameters sslmode and {name} do not contradict each other")
