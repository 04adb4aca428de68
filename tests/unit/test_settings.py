"""The environment: read once, checked at the start, with a message of one line for a fault."""

import traceback
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iidq.errors import SettingsFault
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.provenance.ipfs.gateway import GatewayAddress
from iidq.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the machine's variables and the checkout's ``.env``."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_defaults_are_the_contracts() -> None:
    """Without any variable a process runs with the documented values."""
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 3001)
    assert (settings.max_retry_attempts, settings.retry_backoff_ms, settings.worker_concurrency) == (3, 5000, 3)
    assert (settings.job_lease_seconds, settings.job_timeout_seconds, settings.poll_interval_seconds) == (30, 120, 5)
    assert (settings.retention_completed_days, settings.retention_completed_count) == (7, None)
    assert settings.retention_failed_days == 30
    assert len(settings.ipfs_gateways) >= 2
    assert (settings.max_upload_bytes, settings.max_manifest_bytes) == (1 << 30, 1 << 20)
    assert settings.result_cache_seconds == 10
    assert (settings.rate_limit_submit_per_minute, settings.rate_limit_read_per_minute) == (100, 1000)
    assert settings.rpc_urls == {}


def test_every_variable_is_explained() -> None:
    """Each variable has a description for the README's table."""
    for name, field in Settings.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DATABASE_URL", "mysql://db/x", "a URL that begins with postgresql://"),
        ("DATABASE_SCHEMA", "a'b", "a schema's name of at most 63 bytes"),
        ("DATABASE_SCHEMA", "a$$b", "a schema's name of at most 63 bytes"),
        ("DATABASE_SCHEMA", "ä" * 32, "a schema's name of at most 63 bytes"),
        ("DATABASE_SCHEMA", "pg_mine", "a schema's name of at most 63 bytes"),
        ("RPC_URL", "ws://node", "an http:// or https:// URL"),
        ("RPC_URL", "http://", "an http:// or https:// URL"),
        pytest.param(
            "RPC_URLS_8453",
            "ftp://node",
            "an http:// or https:// URL",
        ),
        ("PORT", "70000", "less than or equal to 65535"),
        ("PORT", "http", "a valid integer"),
        ("WEB_CONCURRENCY", "0", "greater than or equal to 1"),
        ("API_KEY_SCOPE", "none", "'operate' or 'all'"),
        ("MAX_RETRY_ATTEMPTS", "0", "greater than or equal to 1"),
        ("RETRY_BACKOFF_MS", "-1", "greater than or equal to 0"),
        ("RETRY_BACKOFF_MS", "5s", "a valid integer"),
        ("WORKER_CONCURRENCY", "0", "greater than or equal to 1"),
        ("JOB_LEASE_SECONDS", "0.1", "greater than or equal to 0.5"),
        ("JOB_LEASE_SECONDS", "nan", "less than or equal to 3600"),
        ("JOB_TIMEOUT_SECONDS", "0", "greater than 0"),
        ("DRAIN_TIMEOUT_SECONDS", "-1", "greater than or equal to 0"),
        ("POLL_INTERVAL_SECONDS", "0", "greater than or equal to 0.05"),
        ("RETENTION_COMPLETED_DAYS", "-1", "greater than or equal to 0"),
        ("RETENTION_COMPLETED_COUNT", "many", "a valid integer"),
        ("RETENTION_FAILED_DAYS", "-1", "greater than or equal to 0"),
        ("IPFS_GATEWAYS", "https://ok.example, ipfs.io", "an http:// or https:// URL"),
        ("IPFS_GATEWAYS", ",", "at least one gateway"),
        ("MAX_UPLOAD_BYTES", "1GB", "a valid integer"),
        ("MAX_MANIFEST_BYTES", "0", "greater than or equal to 1"),
        ("RPC_ALLOWED_URLS", "node:8545", "an http:// or https:// URL"),
        ("RESULT_CACHE_SECONDS", "-1", "greater than or equal to 0"),
        ("REGISTRY_START_BLOCK", "latest", "a valid integer"),
        ("SYNC_FALLBACK", "maybe", "'on' or 'off'"),
        ("RATE_LIMIT_SUBMIT_PER_MINUTE", "-1", "greater than or equal to 0"),
        ("RATE_LIMIT_READ_PER_MINUTE", "x", "a valid integer"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,proxy.example", "a comma-separated list of addresses or CIDRs"),
        ("RATE_LIMIT_KEY_FACTOR", "-1", "greater than or equal to 0"),
        ("ROOT_PATH", "/a//b", "a path such as /iidq"),
        ("CORS_ORIGINS", "https://app.example.org/", "a comma-separated list of origins"),
        ("CORS_ORIGINS", "*,https://app.example.org", "a comma-separated list of origins"),
        ("CORS_ORIGINS", "app.example.org", "a comma-separated list of origins"),
        ("LOG_FORMAT", "xml", "'text' or 'json'"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_bad_value_gives_one_line(name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad value gives a line with the variable and the expected value; only a number is shown."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsFault) as caught:
        load_settings()
    line = caught.value.message
    assert "\n" not in line
    assert line.startswith(f"{name}=")
    assert expected in line
    # A number is no secret, and shows the mistake at once.
    assert value in line if value.lstrip("-").replace(".", "").isdigit() else "=(hidden) " in line


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("DATABASE_URL", "host=db password=hunter2", "begins with postgresql://"),
        ("DATABASE_URL", "mysql://iidq:hunter2@db/x", "begins with postgresql://"),
        ("DATABASE_URL", "postgresql://u:50%hunter2@h/d", "must be percent-encoded"),
        ("DATABASE_URL", "postgresql://u:hunter2/word@h/d", "must be percent-encoded"),
        ("DATABASE_URL", "postgresql://u:p@hunter2@h/d", "must be percent-encoded"),
        ("DATABASE_URL", "postgresql://h:hunter2/d", "its port is not a number"),
        ("DATABASE_URL", "postgresql://h/d?hunter2=1", "a parameter after the ? is unknown"),
        ("DATABASE_URL", "postgresql://h/d?sslpassword:hunter2", "a parameter after the ? has no ="),
        ("RPC_URL", "ws://node/?apikey=hunter2", "an http:// or https:// URL"),
        ("RPC_URL", "wss://node/v3/hunter2", "an http:// or https:// URL"),
        ("RPC_URL", "https://u:hunter2℀@node/", "its host or port is malformed"),
        ("RPC_URL", "https://node:hunter2/v3", "its host or port is malformed"),
        ("RPC_URLS_8453", "ws://u:hunter2@node/", "an http:// or https:// URL"),
        ("RPC_URLS", "hunter2", "RPC_URLS_<chainId>"),
        ("REDIS_URL", "redis://:hunter2/word@h", "percent-encoded"),
        ("REDIS_URL", "redis+sentinel://h?sentinel_password=hunter2", "the service's name"),
        ("REDIS_URL", "redis://h?hunter2=1", "no other option"),
        ("REDIS_USE", "hunter2", "a comma-separated list of wakeups"),
        ("API_KEY", "hunter2\n", "one line of printable characters"),
        ("DATABASE_URL", "postgresql://u:\udcffhunter2@h/d", "UTF-8 text"),
    ],
)
def test_a_malformed_value_is_never_shown(name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the malformed part without a character of the value."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsFault) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
    assert told in str(caught.value)


_MARK = "hunter2s3cret"
_FORMS = (
    "{}",
    "{}://h",
    "postgresql://{}@h/d",
    "postgresql://u:{}@h/d",
    "postgresql://{}/d",
    "postgresql://h/{}",
    "postgresql://h/d?{}",
    "postgresql://h/d?sslpassword={}",
    "postgresql://h/d?password={}&x=1",
    "https://{}@h/",
    "https://h/v3/{}",
    "https://h/?apikey={}",
    "https://h:{}/",
    "https://[{}]/",
    "redis://:{}@h/0",
    "redis://h/{}",
    "redis+sentinel://h/s?sentinel_password={}",
    "redis+cluster://h/1?{}",
    "unix://{}?db={}",
    "whsec_{}",
    "eip155:{}:0x",
    "10.0.0.0/{}",
)
_odd = st.text("%/?#@:=,[]\\ \"'\n\t\u2100\u0130\udcff.5&;-", max_size=4)


@given(
    st.sampled_from([*(name.upper() for name in Settings.model_fields), "RPC_URLS_5"]),
    st.sampled_from(_FORMS),
    _odd,
    _odd,
    _odd,
)
@example("RPC_URL", "https://{}@h/", "", "\u2100", "")
def test_no_start_fault_holds_a_secret(name: str, form: str, before: str, after: str, end: str) -> None:
    """A fault at the start contains no secret, wherever the mistake in the value is."""
    value = form.replace("{}", f"{before}{_MARK}{after}") + end
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(name, value)
        try:
            settings = load_settings()
            FetchPolicy.opening(settings.fetch_allow_private)
            for gateway in settings.ipfs_gateways:
                GatewayAddress.parse(gateway)
        except SettingsFault as fault:
            told = "".join(traceback.format_exception(fault))
            assert _MARK not in told
            assert "\n" not in fault.message


def test_a_good_secret_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets do not show when settings are logged by accident."""
    monkeypatch.setenv("API_KEY", "hunter2")
    monkeypatch.setenv("PRIVATE_KEY", "0x" + "ab" * 32)
    settings = load_settings()
    assert "hunter2" not in repr(settings)
    assert "abab" not in repr(settings)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "hunter2"


@pytest.mark.parametrize("key", ["0xhunter2", "0x" + "00" * 32, "ff" * 32, "0x" + "ab" * 31, "ab" * 33])
def test_a_private_key_that_is_none_stops_the_start(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A private key that cannot sign stops the start, and is not shown."""
    monkeypatch.setenv("PRIVATE_KEY", key)
    with pytest.raises(SettingsFault, match=r"PRIVATE_KEY=\(hidden\) cannot be used; expected 0x and the 64 hex"):
        load_settings()


def test_a_missing_variable_that_is_needed_is_told() -> None:
    """A command without a required variable stops with the variable and its expected value."""
    with pytest.raises(SettingsFault, match=r"^settings.invalid: DATABASE_URL is not set; expected libpq URL"):
        load_settings("database_url")


def test_dotenv_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """``.env`` of the working directory counts, below real variables and below the command line."""
    Path(".env").write_text("PORT=4000\nWORKER_CONCURRENCY=7\nMAX_RETRY_ATTEMPTS=9\nRPC_URLS_5=https://five.example\n")
    monkeypatch.setenv("WORKER_CONCURRENCY", "8")
    monkeypatch.setenv("MAX_RETRY_ATTEMPTS", "2")
    settings = load_settings(max_retry_attempts=4)
    assert (settings.port, settings.worker_concurrency, settings.max_retry_attempts) == (4000, 8, 4)
    assert settings.rpc_urls == {5: ("https://five.example",)}


def test_chains_are_gathered_from_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """``RPC_URLS_<chainId>`` gives a chain its endpoints in order; other names are ignored."""
    monkeypatch.setenv("RPC_URLS_8453", "https://a.example, https://b.example/v1,")
    monkeypatch.setenv("RPC_URLS_84532", "http://127.0.0.1:8545")
    monkeypatch.setenv("RPC_URLS_", "https://x.example")
    monkeypatch.setenv("RPC_URLS_base", "https://x.example")
    monkeypatch.setenv("RPC_URLS_0", "https://x.example")
    assert load_settings().rpc_urls == {
        8453: ("https://a.example", "https://b.example/v1"),
        84532: ("http://127.0.0.1:8545",),
    }


def test_lists_are_comma_separated_and_empty_means_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks around commas do not matter; an empty variable counts as unset."""
    monkeypatch.setenv("IPFS_GATEWAYS", " https://a.example/ , https://b.example")
    monkeypatch.setenv("FETCH_ALLOW_PRIVATE", "127.0.0.1/32,intranet.example")
    monkeypatch.setenv("PORT", "")
    settings = load_settings()
    assert settings.ipfs_gateways == ("https://a.example", "https://b.example")
    assert settings.fetch_allow_private == ("127.0.0.1/32", "intranet.example")
    assert settings.port == 3001
