"""Body and signature of a webhook, and the schedule after failures."""

import base64
import json
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from iidq.errors import FetchRefused, GatewayFault, SettingsFault
from iidq.setting_values.checks import signing_keys
from iidq.settings import load_settings
from iidq.webhooks.delivery import (
    MAX_ATTEMPTS,
    MAX_RETRY_AFTER_SECONDS,
    DeliveryState,
    after_answer,
    after_failure,
    delay_seconds,
)
from iidq.webhooks.event import event_body, event_headers, signature

OLD = "whsec_" + base64.b64encode(bytes(24)).decode()
NEW = "whsec_" + base64.b64encode(bytes(range(64))).decode()
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
DRAWS = st.floats(0, 1, exclude_max=True)


def test_the_published_vector() -> None:
    """The published example of Standard Webhooks gets its signature."""
    keys = signing_keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert (
        signature(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@given(st.binary(min_size=24, max_size=64), st.uuids(), st.integers(0, 2**37), TEXTS)
def test_the_standards_library_signs_the_same(key: bytes, event_id: UUID, timestamp: int, body: str) -> None:
    """The Standard Webhooks library makes the same signature for any key, id, time and body."""
    expected = Webhook(key).sign(str(event_id), datetime.fromtimestamp(timestamp, UTC), body)
    assert signature([key], str(event_id), timestamp, body.encode()) == expected


@given(st.text('\u20ac"a', max_size=20), st.sampled_from([OLD, NEW]))
def test_the_standards_library_takes_our_requests(name: str, secret: str) -> None:
    """A receiver with either secret of a rotation accepts headers and body, and no other body."""
    body = event_body({**JOB, "fileName": name})
    headers = dict(event_headers(signing_keys(f"{NEW} {OLD}"), UUID(int=1), int(time.time()), body))
    assert Webhook(secret).verify(body, headers) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)


@pytest.mark.parametrize("separator", [" ", ",", ", ", "\n"])
def test_during_a_rotation_both_secrets_sign(separator: str) -> None:
    """Several secrets give several signatures, in the same order, separated by blanks."""
    keys = signing_keys(f"{NEW}{separator}{OLD}")
    alone = [signature(signing_keys(secret), "1", 2, b"3") for secret in (NEW, OLD)]
    assert signature(keys, "1", 2, b"3") == " ".join(alone)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "secret-of-mine",
        "whsec_",
        "whsec_secret-of-mine!",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whpk_" + base64.b64encode(bytes(32)).decode(),
        f"{OLD} secret-of-mine",
    ],
)
def test_a_secret_of_another_form_is_refused_without_a_word_of_it(text: str) -> None:
    """A secret of another form is refused with the expected form, and without the secret."""
    with pytest.raises(ValueError, match="whsec_ and the base64 of 24 to 64") as refusal:
        signing_keys(text)
    assert "secret-of-mine" not in str(refusal.value)


def test_a_bad_secret_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad secret stops the start, with the variable and without the value."""
    monkeypatch.setenv("WEBHOOK_SECRET", "secret-of-mine")
    with pytest.raises(SettingsFault, match=r"WEBHOOK_SECRET=\(hidden\) cannot be used; expected whsec_ and"):
        load_settings()
    monkeypatch.setenv("WEBHOOK_SECRET", f"{NEW} {OLD}")
    assert NEW not in repr(load_settings())


JOB: dict[str, Any] = {
    "id": "1",
    "status": "completed",
    "completedAt": "2026-11-24T00:50:26.013Z",
    "fileName": "Überraschung 🎁.png",
    "callback": {"state": "pending"},
}


def test_the_event_is_the_job_but_for_its_delivery() -> None:
    """The event has type, time of the end and the job, and nothing that differs between attempts."""
    assert json.loads(event_body(JOB)) == {
        "type": "verification.completed",
        "timestamp": "2026-11-24T00:50:26.013Z",
        "data": {name: value for name, value in JOB.items() if name != "callback"},
    }


def test_headers_are_those_of_standard_webhooks() -> None:
    """The headers of Standard Webhooks are id, time and signature."""
    body = event_body(JOB)
    event_id = UUID("01a20ab7-d307-702e-8fe6-dfee29bc1bf7")
    headers = dict(event_headers([b"k" * 32], event_id, 1_800_000_000, body))
    assert headers["webhook-id"] == str(event_id)
    assert headers["webhook-timestamp"] == "1800000000"
    assert headers["webhook-signature"] == signature([b"k" * 32], str(event_id), 1_800_000_000, body)
    assert headers["Content-Type"] == "application/json"


def test_the_schedule_is_the_recommended_one() -> None:
    """A delivery has ten attempts: after 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 hours; then it is given up."""
    minute, hour = 60, 3600
    planned = [5, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour]
    assert [delay_seconds(failed, draw=0.0) for failed in range(1, 11)] == [*planned, None]
    assert MAX_ATTEMPTS == 10


@given(st.integers(1, MAX_ATTEMPTS - 1), DRAWS, st.none() | st.floats(0, 1e12))
def test_delays_are_jittered_and_bounded(failed: int, draw: float, retry_after_seconds: float | None) -> None:
    """A delay is never below the plan or Retry-After, and at most a fifth above; Retry-After counts up to a day."""
    planned = delay_seconds(failed, draw=0.0)
    delay = delay_seconds(failed, draw=draw, retry_after_seconds=retry_after_seconds)
    assert planned is not None
    assert delay is not None
    least = max(planned, min(retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS))
    assert least <= delay <= least * 1.2


@given(st.integers(100, 599), st.integers(1, 12), DRAWS)
def test_only_2xx_is_a_delivery(status: int, attempt: int, draw: float) -> None:
    """Only 2xx is a delivery; 410 ends the attempts; any other status is tried again, up to the last attempt."""
    settled = after_answer(status, attempt=attempt, draw=draw)
    assert settled.status == status
    if 200 <= status < 300:
        assert (settled.state, settled.error) == (DeliveryState.DELIVERED, None)
    elif status == 410 or attempt >= MAX_ATTEMPTS:
        assert (settled.state, settled.delay_seconds) == (DeliveryState.GAVE_UP, None)
    else:
        assert settled.state is DeliveryState.PENDING
        assert settled.delay_seconds is not None
        assert str(status) in str(settled.error)


def test_retry_after_counts_where_it_means_overload() -> None:
    """Retry-After counts with 429 and 503, and with no other status."""
    waits = {
        status: after_answer(status, attempt=1, draw=0.0, retry_after_seconds=900).delay_seconds
        for status in (301, 429, 500, 503)
    }
    assert waits == {301: 5, 429: 900, 500: 5, 503: 900}


def test_a_forbidden_address_is_given_up_and_a_dead_one_is_not() -> None:
    """A forbidden address is given up; a refused connection is tried again."""
    refused = after_failure(FetchRefused("no", code="fetch.refused.address"), attempt=1, draw=0.0)
    assert (refused.state, refused.error) == (DeliveryState.GAVE_UP, "fetch.refused.address: no")
    away = after_failure(GatewayFault("away"), attempt=1, draw=0.0)
    assert (away.state, away.delay_seconds, away.error) == (DeliveryState.PENDING, 5, "fetch.unavailable: away")
