"""Test that commands without a start or a reachable service report the fault without a secret."""

import sys
from pathlib import Path

import pytest

from iidq.cli import main
from iidq.cli.operators.diagnosis import diagnose
from iidq.observability.traces import open_traces
from iidq.settings import Settings, load_settings

SECRET = "hunter2s3cret"
CLOSED = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the machine's variables and the ``.env`` of the checkout."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("command", ["doctor", "serve", "worker", "migrate", "up", "jobs list", "stats"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", f"host=db password={SECRET} "),
        ("DATABASE_URL", f"postgresql://u:50%{SECRET}@h/d"),
        ("DATABASE_URL", f"postgresql://u:{SECRET}@a,b/d?port=1,2,3"),
        ("DATABASE_URL", f"postgresql://u:p@h/d?sslpassword={SECRET}&{SECRET}=1"),
        ("DATABASE_URL", f"postgresql://u:{SECRET}@h/d?sslmode={SECRET}"),
        ("DATABASE_URL", f"postgresql://u:{SECRET}@h/d?connect_timeout={SECRET}"),
        ("DATABASE_URL", f"postgresql://u:{SECRET}@h/d?target_session_attrs={SECRET}"),
        ("DATABASE_URL", f"postgresql://u:{SECRET}@h/d?service={SECRET}"),
        ("DATABASE_URL", f"postgresql://u:{SECRET}@h/d?sslkey=/none/{SECRET}"),
        ("RPC_URL", f"wss://mainnet.example/v3/{SECRET}"),
        ("RPC_URLS", SECRET),
        ("REDIS_URL", f"redis://:pass/{SECRET}@h"),
        ("API_KEY", f"{SECRET}\n"),
    ],
)
def test_no_start_fault_shows_a_malformed_value(
    command: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every command ends with one line with the variable's name, and with an exit code for failure."""
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["iidq", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    told = "".join(capfd.readouterr())
    assert ended.value.code not in (0, None)
    assert name in told
    assert SECRET not in told
    assert len(told.splitlines()) == 1


async def test_the_doctor_shows_no_credential_of_a_place_that_is_away() -> None:
    """User info, keys in paths and secret parameters stay out of attempts, results and remedies."""
    settings = load_settings(
        database_url=f"postgresql://u:{SECRET}@{CLOSED}/d?sslpassword={SECRET}",
        rpc_url=f"http://{CLOSED}/v3/{SECRET}",
        rpc_allowed_urls=f"http://{CLOSED}/?apikey={SECRET}",
        ipfs_gateways=f"http://u:{SECRET}@{CLOSED}/{SECRET}",
        redis_url=f"redis+sentinel://u:{SECRET}@{CLOSED}/s?sentinel_password={SECRET}",
    )
    findings = await diagnose(settings)
    assert {finding.check for finding in findings} >= {"database", "chain", "gateway", "Redis"}
    assert SECRET not in repr(findings)


@pytest.mark.parametrize("key", [f"{SECRET}\n", f"\x00{SECRET}"])
def test_a_key_that_no_header_can_hold_is_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A client with an unusable key names the fault without quoting the key."""
    monkeypatch.setattr(sys, "argv", ["iidq", "stats", "--server", f"http://{CLOSED}", "--api-key", key])
    with pytest.raises(SystemExit) as ended:
        main()
    told = "".join(capfd.readouterr())
    assert ended.value.code == 2
    assert "printable" in told
    assert SECRET not in told


async def test_malformed_headers_of_the_collector_are_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK's warning about OTEL_EXPORTER_OTLP_HEADERS names the variable without its value."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization {SECRET}")
    async with open_traces(load_settings(otel_exporter_otlp_endpoint=f"http://{CLOSED}"), "api"):
        pass
    assert "OTEL_EXPORTER_OTLP_HEADERS" in caplog.text
    assert SECRET not in caplog.text
