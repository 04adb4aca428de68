"""The receiver and the statements of docs/webhooks.md."""

import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from iidq.setting_values.checks import signing_keys
from iidq.webhooks.event import event_body, event_headers
from tests.webhooks import SECRET, cancel, insert_with_callback

DOCUMENT = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text(encoding="utf-8")
OTHER_SECRET = "whsec_" + "A" * 32
NOW = 1_795_476_147


@pytest.fixture
def read_webhook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the documented function."""
    [source] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102 — our own document
    monkeypatch.setattr(names["time"], "time", lambda: NOW + 100.0)
    return names["read_webhook"]


def sent(*secrets: str, at: int = NOW) -> tuple[dict[str, str], bytes]:
    body = event_body({"status": "completed", "completedAt": "2026-11-24T00:50:26.013Z", "fileName": "ü"})
    headers = event_headers(signing_keys(" ".join(secrets)), uuid4(), at, body)
    return {name.lower(): value for name, value in headers}, body


def test_the_documented_receiver_takes_what_is_sent(read_webhook: Any) -> None:
    """The documented receiver accepts an event, also during a rotation, with the old or the new secret."""
    headers, body = sent(OTHER_SECRET, SECRET)
    assert read_webhook(SECRET, headers, body) == read_webhook(OTHER_SECRET, headers, body) == json.loads(body)


def test_the_documented_receiver_refuses_everything_else(read_webhook: Any) -> None:
    """The documented receiver refuses a changed body, id or time, another secret, and an old request."""
    headers, body = sent(SECRET)
    forged = [
        (SECRET, headers, body + b" "),
        (SECRET, {**headers, "webhook-id": str(uuid4())}, body),
        (SECRET, {**headers, "webhook-timestamp": str(NOW + 1)}, body),
        (OTHER_SECRET, headers, body),
        (SECRET, *sent(SECRET, at=NOW - 3600)),
    ]
    for attempt in forged:
        with pytest.raises(ValueError, match=r"too old|not signed"):
            read_webhook(*attempt)


def test_the_documented_statements_run(sql: psycopg.Connection[Any]) -> None:
    """The documented statements run unchanged, and the second makes given-up deliveries due."""
    for _ in range(2):
        cancel(sql, insert_with_callback(sql, "https://example.org/hook"))
    sql.execute("""UPDATE iidq_webhook_delivery SET state = 'gave_up', "nextAt" = NULL""")
    look, send_again = re.findall(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL)
    assert sql.execute(look.encode()).fetchall() == [("gave_up", "example.org", 2, None, None)]
    assert sql.execute(send_again.encode()).rowcount == 2
