"""``REDIS_URL``: every accepted form, and refusals."""

import pytest

from iidq.errors import SettingsFault
from iidq.setting_values.redis_url import Kind, RedisAddress, parse_redis_url
from iidq.settings import load_settings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", RedisAddress(Kind.ONE_SERVER, (("cache", 6379),))),
        (
            "redis://me:p%40ss@cache:7000/3",
            RedisAddress(Kind.ONE_SERVER, (("cache", 7000),), database=3, username="me", password="p@ss"),
        ),
        ("redis://:hidden@cache/", RedisAddress(Kind.ONE_SERVER, (("cache", 6379),), password="hidden")),
        ("redis://[::1]:7000?db=2", RedisAddress(Kind.ONE_SERVER, (("::1", 7000),), database=2)),
        (
            "rediss://cache?ssl_ca_certs=/ca.pem",
            RedisAddress(Kind.ONE_SERVER, (("cache", 6379),), tls=True, options=(("ssl_ca_certs", "/ca.pem"),)),
        ),
        ("unix:///run/redis.sock?db=1", RedisAddress(Kind.ONE_SERVER, path="/run/redis.sock", database=1)),
        (
            "redis+sentinel://u:p@a,b:5000/mymaster/4?sentinel_password=s",
            RedisAddress(
                Kind.SENTINEL,
                (("a", 26379), ("b", 5000)),
                service="mymaster",
                database=4,
                username="u",
                password="p",
                sentinel_password="s",
            ),
        ),
        ("redis+cluster://a,b:7001", RedisAddress(Kind.CLUSTER, (("a", 6379), ("b", 7001)))),
        ("rediss+cluster://a", RedisAddress(Kind.CLUSTER, (("a", 6379),), tls=True)),
    ],
)
def test_forms_that_are_understood(url: str, expected: RedisAddress) -> None:
    """A server, a socket, Sentinels and a Cluster are accepted, with user, password, database and TLS as the form
    allows.
    """
    assert parse_redis_url(url) == expected


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://cache", "redis://, rediss://"),
        ("redis:cache", "redis://, rediss://"),
        ("redis://a,b", "one host"),
        ("redis://a/x", "a database's number"),
        ("redis://a:99999", "a port"),
        ("redis+sentinel://a", "the service's name"),
        ("redis+cluster://a/1", "database 0"),
        ("redis://a?speed=high", "no other option"),
    ],
)
def test_others_stop_the_start(url: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unusable URL stops the start with the expected form, without the password."""
    with pytest.raises(ValueError, match=told):
        parse_redis_url(url)
    monkeypatch.setenv("REDIS_URL", url.replace("://", "://:hunter2@", 1))
    with pytest.raises(SettingsFault) as fault:
        load_settings()
    assert "REDIS_URL" in str(fault.value)
    assert "hunter2" not in str(fault.value)


def test_unknown_uses_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """``REDIS_USE`` takes known uses only; an unknown use stops the start with the known ones."""
    assert load_settings(redis_use="caches,limits").redis_use == ("caches", "limits")
    with pytest.raises(SettingsFault, match=r"REDIS_USE=\(hidden\).*wakeups, progress"):
        load_settings(redis_use="everything")
