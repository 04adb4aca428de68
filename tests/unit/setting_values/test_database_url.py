"""``DATABASE_URL`` in the spellings of other drivers, and refusals by libpq."""

import re
import traceback
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from iidq.errors import SettingsFault
from iidq.setting_values.database_url import FORM, IGNORED, read_database_url
from iidq.settings import Settings, load_settings

NO_ROOT = {"sslmode": "require", "sslrootcert": "/dev/null/none"}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the machine's variables and the checkout's ``.env``."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("query", "libpq"),
    [
        ("connection_limit=5&pool_timeout=2&socket_timeout=9&single_use_connections=true", {}),
        ("pgbouncer=true&statement_cache_size=0&connect_timeout=0", {"connect_timeout": "0"}),
        ("sslmode=no-verify", NO_ROOT),
        ("ssl=no-verify&sslrootcert=/of/somebody", NO_ROOT),
        ("ssl=true", {"sslmode": "verify-full", "sslrootcert": "system"}),
        ("ssl=1&sslrootcert={file}", {"sslmode": "verify-full", "sslrootcert": "{file}"}),
        ("sslmode=require&ssl=true", {"sslmode": "require"}),
        ("ssl=true&sslmode=no-verify", NO_ROOT),
        ("ssl=0", {"sslmode": "disable"}),
        ("ssl=0&sslmode=disable", {"sslmode": "disable"}),
        ("pool_max_conns=9&default_query_exec_mode=exec&statement-cache-capacity=0&max_overflow=1&fetch_types=0", {}),
        ("schema=&ssl=&sslaccept=&connect_timeout=&keepalives_idle=&pool=", {}),
        ("ssl=verify-ca", {"sslmode": "verify-ca"}),
        ("sslmode=require&uselibpqcompat=true", {"sslmode": "require"}),
        ("sslaccept=accept_invalid_certs", {"sslrootcert": "/dev/null/none"}),
        ("sslmode=disable&sslaccept=accept_invalid_certs", {"sslmode": "disable", "sslrootcert": "/dev/null/none"}),
        ("sslmode=prefer&sslaccept=strict", {"sslmode": "verify-full", "sslrootcert": "system"}),
        ("sslmode=verify-full&sslaccept=strict", {"sslmode": "verify-full", "sslrootcert": "system"}),
        ("sslaccept=strict&sslcert={file}", {"sslmode": "verify-full", "sslrootcert": "{file}"}),
        ("sslidentity=x.p12&sslpassword=y&sslcert={file}", {"sslpassword": "y", "sslrootcert": "{file}"}),
        ("sslcert={file}&sslkey={file}", {"sslcert": "{file}", "sslkey": "{file}"}),
        ("sslnegotiation=direct&sslmode=require", {"sslnegotiation": "direct", "sslmode": "require"}),
        ("options=-c search_path%3Dx%20-c%20y=z".replace(" ", "%20"), {"options": "-c search_path=x -c y=z"}),
        ("application_name=%C3%A9%26&", {"application_name": "é&"}),
        ("host=/tmp,/run&port=1,2", {"host": "/tmp,/run", "port": "1,2"}),
    ],
)
def test_other_drivers_parameters_are_translated_or_left_out(
    query: str, libpq: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters with a meaning for libpq reach libpq, and no others; a process given the resulting URL agrees."""
    file = tmp_path / "a file"
    file.touch()
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:p@h/d?{query.replace('{file}', quote(str(file)))}")
    url = load_settings().database_url
    assert url is not None
    expected = {"user": "u", "password": "p", "host": "h", "dbname": "d"}
    expected |= {name: value.replace("{file}", str(file)) for name, value in libpq.items()}
    assert conninfo_to_dict(url) == expected
    assert load_settings(database_url=url).database_url == url


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u@h:5432/d",
        "postgresql+psycopg://u@h:5432/d",
        "postgresql+asyncpg://u@h:5432/d?prepared_statement_cache_size=0",
        " postgresql://u@h:5432/d\n",
    ],
)
def test_spellings_of_the_scheme(url: str) -> None:
    """The scheme may name SQLAlchemy's driver, and blanks may surround the URL, as in a file of a secret."""
    assert read_database_url(url).libpq == "postgresql://u@h:5432/d"


@pytest.mark.parametrize(
    "url",
    ["postgresql://", "postgresql:///d", "postgresql://[::1]:5/d", "postgresql://a,b:2,c", "postgresql://u:1?x=y@h/d"],
)
def test_what_libpq_takes_stays_as_it_is(url: str) -> None:
    """A URL that needs no translation is unchanged, also with special characters in the password."""
    assert read_database_url(url) == (url, None, ())


def test_the_names_of_what_is_ignored_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of ignored parameters are known for the log, without values."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/d?pgbouncer=true&sslmode=require&connection_limit=7")
    assert load_settings().ignored_parameters == ("pgbouncer", "connection_limit")


def test_no_ignored_name_is_one_of_libpqs() -> None:
    """No ignored parameter is a parameter of libpq."""
    assert not {option.keyword.decode() for option in Conninfo.get_defaults()} & IGNORED


@pytest.mark.parametrize(
    ("variable", "query", "schema"),
    [("", "", "public"), ("", "?schema=iidq", "iidq"), ("iidq", "", "iidq"), ("a b", "?schema=a%20b", "a b")],
)
def test_schema_of_either_variable(variable: str, query: str, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``?schema=`` is equivalent to ``DATABASE_SCHEMA``, and is removed from libpq's URL."""
    monkeypatch.setenv("DATABASE_SCHEMA", variable)
    monkeypatch.setenv("DATABASE_URL", f"postgresql://h/d{query}")
    settings = load_settings()
    assert (settings.database_schema, settings.database_url) == (schema, "postgresql://h/d")


def test_two_different_schemas_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two different schemas are a fault, and the line names both places."""
    monkeypatch.setenv("DATABASE_SCHEMA", "public")
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/d?schema=iidq")
    with pytest.raises(SettingsFault, match=r"^settings.invalid: DATABASE_SCHEMA and \?schema= of DATABASE_URL differ"):
        load_settings()


@pytest.mark.parametrize("name", ["pg_x", "x" * 64, "é" * 32, "x\0y", "it's", "50%", "a$$b"])
def test_a_name_that_no_schema_can_have(name: str) -> None:
    """A schema name that Postgres cannot have is a fault, and the line names the variable."""
    with pytest.raises(SettingsFault, match=r"DATABASE_SCHEMA=.* a schema's name of at most 63 bytes"):
        load_settings(database_schema=name)
    with pytest.raises(SettingsFault, match=r"^settings.invalid: DATABASE_URL="):
        load_settings(database_url=f"postgresql://h/d?schema={quote(name)}")


REFUSED = {
    "mysql://u:{}@h/d": "begins with postgresql://",
    "jdbc:postgresql://h/d?password={}": "begins with postgresql://",
    "host=h password={}": "begins with postgresql://",
    '"postgresql://u:{}@h/d"': "begins with postgresql://",
    "{}": "begins with postgresql://",
    "postgresql://u:50%{}@h/d": "percent-encoded",
    "postgresql://u:%00{}@h/d": "percent-encoded",
    "postgresql://u:{} x@h/d": "percent-encoded",
    "postgresql://u:{}\tx@h/d": "percent-encoded",
    "postgresql://u:{}%FF@h/d": "UTF-8",
    "postgresql://u:1/{}@h/d": "percent-encoded",
    "postgresql://u:p@{}@h/d": "percent-encoded",
    "postgresql://u:{}/d": "its port",
    "postgresql://h:0/d?password={}": "its port",
    "postgresql://h/d?port={}": "its port",
    "postgresql://[{}/d": "its host is malformed",
    "postgresql://u:{}@a,b/d?port=1,2,3": "one port for all hosts",
    "postgresql://u:{}@a,b,c/d?port=1,2": "one port for all hosts",
    "postgresql://u:{}@/d?host=a,b&port=1,2,3": "one port for all hosts",
    "postgresql://u:{}@a,b/d?hostaddr=127.0.0.1": "parameter hostaddr",
    "postgresql://h/d?hostaddr={}": "parameter hostaddr",
    "postgresql://h/d?{}=1": "a parameter after the ? is unknown: number 1",
    "postgresql://h/d?sslmode=require&{}": "a parameter after the ? has no =: number 2",
    "postgresql://u:1/?{}=x@h/d": "unknown",
    "postgresql://u:{}@h/d?sslmod=require": "unknown: number 1 (did you mean sslmode?)",
    "postgresql://u:{}@h/d?pgbouncer=true&Connect-Timeout={}": "unknown: number 2 (did you mean connect_timeout?)",
    "postgresql://u:{}@h/d?connexionlimit=1": "(did you mean connection_limit?)",
    "postgresql://u:{}@h/d?foo=1": "unknown: number 1",
    **{
        f"postgresql://u:{{}}@h/d?{wishes}": f"parameters sslmode and {name} do not contradict"
        for name, both in {
            "sslaccept": (
                "sslmode=verify-full&sslaccept=accept_invalid_certs",
                "sslmode=verify-ca&sslaccept=accept_invalid_certs", "ssl=true&sslaccept=accept_invalid_certs",
                "sslmode=disable&sslaccept=strict",
                "sslaccept=strict&sslmode=no-verify", "ssl=false&sslaccept=strict",
            ),
            "ssl": ("sslmode=disable&ssl=true", "ssl=1&sslmode=prefer", "ssl=0&sslmode=require", "ssl=allow&sslmode=x"),
        }.items()
        for wishes in both
    },
    **{
        f"postgresql://u:{{}}@h/d?{name}={{}}": f"parameter {name} "
        for name in (
            "sslmode", "sslnegotiation", "sslcertmode", "channel_binding", "require_auth", "target_session_attrs",
            "load_balance_hosts", "gssencmode", "ssl_min_protocol_version", "ssl_max_protocol_version",
            "min_protocol_version", "scram_client_key", "service", "connect_timeout", "keepalives", "keepalives_idle",
            "keepalives_interval", "keepalives_count", "tcp_user_timeout", "passfile", "sslcert", "sslkey",
            "sslrootcert", "sslcrl", "sslcrldir", "sslaccept",
        )
    },
    "postgresql://u:{}@h/d?ssl={}": "parameter sslmode",
    "postgresql://u:{}@h/d?sslnegotiation=direct&sslmode=prefer": "parameter sslnegotiation",
    "postgresql://u:{}@h/d?sslrootcert=system&sslmode=require": "parameter sslrootcert",
    "postgresql://u:{}@h/d?schema=pg_{}": "parameter schema",
}  # fmt: skip


@pytest.mark.parametrize(("form", "told"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_libpq_refuses_is_one_line(form: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL refused by libpq stops the start with variable, faulty part and expected form; nothing of the URL is
    quoted.
    """
    monkeypatch.setenv("DATABASE_URL", form.replace("{}", "hunter2s3cret"))
    with pytest.raises(SettingsFault) as caught:
        load_settings()
    line = caught.value.message
    assert line.startswith(f"DATABASE_URL=(hidden) cannot be used; expected {FORM}")
    assert told in line
    assert "\n" not in line
    assert "hunter" not in "".join(traceback.format_exception(caught.value))


def test_the_service_of_a_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service in the operator's file is used; the look-up opens no connection."""
    file = tmp_path / "services"
    file.write_text("[queue]\nhostaddr=192.0.2.1\nport=9\nsslmode=require\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    assert read_database_url("postgresql:///?service=queue").libpq == "postgresql:///?service=queue"


@pytest.mark.parametrize(
    ("variables", "query"),
    [
        ({"PGSSLNEGOTIATION": "direct"}, "sslmode=require"),
        ({"PGSSLNEGOTIATION": "nonsense"}, "sslnegotiation=postgres"),
        ({"PGSSLROOTCERT": "system"}, "sslmode=verify-full"),
        ({"PGSSLMODE": "nonsense"}, "ssl=true"),
        ({"PGSSLCERTMODE": "nonsense", "PGTARGETSESSIONATTRS": "x"}, "sslcertmode=allow&target_session_attrs=any"),
    ],
)
def test_the_urls_values_take_the_place_of_libpqs_variables(
    variables: dict[str, str], query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL that libpq takes with the variables is no fault, although libpq would refuse the variables alone."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert read_database_url(f"postgresql://h/d?{query}").libpq.startswith("postgresql://h/d?")


@pytest.mark.parametrize("name", ["PGSSLMODE", "PGSSLCERTMODE", "PGREQUIREAUTH", "PGTARGETSESSIONATTRS"])
def test_a_fault_of_the_environment_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of a variable is not blamed on the URL, and a fault of the URL is not blamed on a variable."""
    monkeypatch.setenv(name, "hunter2")
    with pytest.raises(ValueError, match=f"goes with the environment: libpq refuses it with {name}$"):
        read_database_url("postgresql://h/d?application_name=x&connect_timeout=9")
    with pytest.raises(ValueError, match="whose parameter channel_binding is"):
        read_database_url("postgresql://h/d?application_name=x&channel_binding=hunter")


_CANARY = "c4n&ry/S3cr=t%7Bword"
_PLACES = (
    "postgresql://u:{}@h/d",
    "postgresql://{}:p@h/d",
    "postgresql://{}/d",
    "postgresql://u:1{}@h/d",
    "postgresql://h:{}/d",
    "postgresql://h/d?{}",
    "postgresql://h/d?{}=1",
    "host=h password={}",
    "{}://h/d",
    *(f"postgresql://u:{{}}@h/d?{option.keyword.decode()}={{}}" for option in Conninfo.get_defaults()),
    *(f"postgresql://u:{{}}@h/d?{name}={{}}" for name in (*sorted(IGNORED), "schema", "ssl", "sslaccept")),
)
_spelling = st.sampled_from([str, quote, lambda text: quote(text, safe=""), unquote, str.upper])
_odd = st.text("%/?#@:=,&+[]\\ \"'\n\t\0é\u2100\udcff.5-", max_size=5)
_PIECES = {
    spelt[start : start + 6]
    for spelt in (_CANARY, quote(_CANARY, safe=""), quote(_CANARY), unquote(_CANARY), _CANARY.upper())
    for start in range(len(spelt) - 5)
}


@given(place=st.sampled_from(_PLACES), spell=_spelling, before=_odd, after=_odd, end=_odd)
@example(place=_PLACES[0], spell=str, before="50%", after="", end="")
def test_no_piece_of_a_secret_is_told(place: str, spell: object, before: str, after: str, end: str) -> None:
    """For any URL the start continues, or ends with a single line without six characters of a secret."""
    url = place.replace("{}", f"{before}{spell(_CANARY)}{after}") + end  # type: ignore[operator]
    try:
        settings = Settings(_env_file=None, database_url=url)
    except ValueError:
        with pytest.raises(SettingsFault) as caught:
            load_settings(database_url=url)
        told = caught.value.message + "".join(traceback.format_exception(caught.value))
        assert "\n" not in caught.value.message
    else:
        assert settings.database_url is not None
        conninfo_to_dict(settings.database_url)
        assert load_settings(database_url=settings.database_url).database_url == settings.database_url
        told = repr(settings.ignored_parameters)
    assert not [piece for piece in _PIECES if piece.lower() in told.lower()]
    assert re.search(r"c4n|S3cr", told, re.IGNORECASE) is None
