"""Credentials inside URLs never leave the process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.observability.redaction import redact_url

secrets = st.text("abcdefghijklmnopqrstuvwxyz0123456789%.~-", min_size=6).map("S3".__add__)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("postgresql://u:pw@db/x", "postgresql://***@db/x"),
        ("https://token@rpc.example/v1", "https://***@rpc.example/v1"),
        ("https://rpc.example/?apikey=abc&x=1", "https://rpc.example/?apikey=***&x=1"),
        ("https://rpc.example/?x=1&API_KEY=abc#top", "https://rpc.example/?x=1&API_KEY=***#top"),
        (
            "https://a.example/?token=abc and https://u:p@b.example/",
            "https://a.example/?token=*** and https://***@b.example/",
        ),
        ("https://u:p@ss@rpc.example/", "https://***@rpc.example/"),
        ("redis+sentinel://h/s?db=1&sentinel_password=abc", "redis+sentinel://h/s?db=1&sentinel_password=***"),
        ("postgresql://h/d?sslpassword=abc&sslmode=require", "postgresql://h/d?sslpassword=***&sslmode=require"),
        ("https://s3.example/a?X-Amz-Signature=abc&x-id=1", "https://s3.example/a?X-Amz-Signature=***&x-id=1"),
        ("https://a.example/?design=abc&monkey=b", "https://a.example/?design=abc&monkey=b"),
        ("no url: me@example.org key=value", "no url: me@example.org key=value"),
        ("https://a.example/path@v2?q=1", "https://a.example/path@v2?q=1"),
    ],
)
def test_redacted_texts(text: str, redacted: str) -> None:
    """User info and secret parameters become ***; everything else stays readable."""
    assert redact_url(text) == redacted


@given(secrets, st.sampled_from(["https://u:{}@h/", "redis://:{}@h:1/0", "http://h/?a=1&key={}", "http://h/?sig={}#f"]))
def test_no_secret_survives(secret: str, form: str) -> None:
    """No part of a secret is left after redaction, for any characters."""
    assert secret not in redact_url(f"cannot reach {form.format(secret)} now")


@given(st.text())
def test_redaction_is_stable(text: str) -> None:
    """Redacting twice equals redacting once."""
    assert redact_url(redact_url(text)) == redact_url(text)
