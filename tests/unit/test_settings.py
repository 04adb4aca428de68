"""The environment: read once, checked at the start, told in one line what to mend."""

from pathlib import Path

import pytest

from iidq.errors import SettingsFault
from iidq.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the machine and no ``.env`` of the checkout is seen."""
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
    """The README's table is made of these texts."""
    for name, field in Settings.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DATABASE_URL", "mysql://db/x", "a URL that begins with postgresql://"),
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
        ("CORS_ORIGINS", "https://app.example.org/", "a comma-separated list of origins"),
        ("CORS_ORIGINS", "*,https://app.example.org", "a comma-separated list of origins"),
        ("CORS_ORIGINS", "app.example.org", "a comma-separated list of origins"),
        ("LOG_FORMAT", "xml", "'text' or 'json'"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_bad_value_gives_one_line(name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the variable and its value, and says what was expected instead."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsFault) as caught:
        load_settings()
    line = caught.value.message
    assert "\n" not in line
    assert line.startswith(f"{name}=")
    assert value in line
    assert expected in line


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("DATABASE_URL", "mysql://iidq:hunter2@db/x", "hunter2"),
        ("RPC_URL", "ws://node/?apikey=hunter2", "hunter2"),
        ("RPC_URLS_8453", "ws://u:hunter2@node/", "hunter2"),
    ],
)
def test_secrets_inside_bad_values_are_hidden(
    name: str, value: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad value is shown, but not the credentials in it."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsFault) as caught:
        load_settings()
    assert secret not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_good_secret_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys do not show when settings are logged by accident."""
    monkeypatch.setenv("API_KEY", "hunter2")
    monkeypatch.setenv("PRIVATE_KEY", "0x" + "ab" * 32)
    settings = load_settings()
    assert "hunter2" not in repr(settings)
    assert "abab" not in repr(settings)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "hunter2"


@pytest.mark.parametrize("key", ["0xhunter2", "0x" + "00" * 32, "ff" * 32, "0x" + "ab" * 31, "ab" * 33])
def test_a_private_key_that_is_none_stops_the_start(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot sign is told at the start, without showing it."""
    monkeypatch.setenv("PRIVATE_KEY", key)
    with pytest.raises(SettingsFault, match=r"PRIVATE_KEY=\(hidden\) cannot be used; expected 0x and the 64 hex"):
        load_settings()


def test_a_missing_variable_that_is_needed_is_told() -> None:
    """A command that cannot do without a variable says which, and what it should be."""
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
    """``RPC_URLS_<chainId>`` gives a chain its endpoints in order; other names are none of ours."""
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
    """Blanks around commas do not matter; an empty variable is as if it were not there."""
    monkeypatch.setenv("IPFS_GATEWAYS", " https://a.example/ , https://b.example")
    monkeypatch.setenv("FETCH_ALLOW_PRIVATE", "127.0.0.1/32,intranet.example")
    monkeypatch.setenv("PORT", "")
    settings = load_settings()
    assert settings.ipfs_gateways == ("https://a.example", "https://b.example")
    assert settings.fetch_allow_private == ("127.0.0.1/32", "intranet.example")
    assert settings.port == 3001
