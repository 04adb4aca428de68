"""http(s) URLs: opened hosts and networks, and redirects."""

import pytest

from iidq.errors import FetchRefused, SettingsFault
from iidq.guarded_http.fetch_policy import PUBLIC_ONLY, FetchPolicy
from iidq.guarded_http.url import parse_web_url, redirect_target

OPENED = FetchPolicy.opening(["10.1.0.0/16", "127.0.0.1", "::1", "Intranet.Example"])


@pytest.mark.parametrize(
    "text",
    [
        "http://10.1.2.3:8080/x",
        "http://127.0.0.1:1/x",
        "http://[::1]:9000/x",
        "http://intranet.example:8080/x",
        "https://INTRANET.example.:8443/x",
        "http://somewhere.example:8080/x",
    ],
)
def test_opened_hosts_and_networks_are_let_through_on_any_port(text: str) -> None:
    """Opened hosts and networks pass; a name may lead into an opened network, which dialing checks."""
    assert str(parse_web_url(text, allow_private=OPENED)) == text.lower().replace(".:", ":")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("http://10.2.0.1/x", "address"),
        ("http://127.0.0.2/x", "address"),
        ("http://2130706433/x", "address"),
        ("http://[::ffff:127.0.0.1]/x", "address"),
        ("http://8.8.8.8:8080/x", "port"),
        ("http://somewhere.example:0/x", "port"),
        ("http://intranet.example:70000/x", "port"),
        ("http://user@intranet.example/x", "credentials"),
    ],
)
def test_other_hosts_and_networks_stay_closed(text: str, rule: str) -> None:
    """Opening a network opens no other network and lifts no other rule."""
    with pytest.raises(FetchRefused) as caught:
        parse_web_url(text, allow_private=OPENED)
    assert caught.value.code == f"fetch.refused.{rule}"


@pytest.mark.parametrize("item", ["127.0.0.1:80", "http://x", "a b", "10.0.0.0/33", "*"])
def test_an_unusable_allowance_stops_the_start(item: str) -> None:
    """FETCH_ALLOW_PRIVATE takes hosts and CIDRs; any other entry stops the start."""
    with pytest.raises(SettingsFault, match="FETCH_ALLOW_PRIVATE"):
        FetchPolicy.opening([item])


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/b", "https://example.org/b"),
        ("b?c", "https://example.org/a/b?c"),
        ("//other.example/", "https://other.example/"),
        ("http://other.example/x#y", "http://other.example/x"),
    ],
)
def test_redirects_are_resolved_against_their_page(location: str, expected: str) -> None:
    """Relative, protocol-relative and absolute locations are resolved as by a browser."""
    base = parse_web_url("https://example.org/a/x", allow_private=PUBLIC_ONLY)
    assert str(redirect_target(base, location, allow_private=PUBLIC_ONLY)) == expected


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/",
        "//127.0.0.1/",
        "file:///etc/passwd",
        "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o",
        "http://[",
        "http://x:22/",
        "/\\x",
    ],
)
def test_redirects_are_checked_like_fresh_urls(location: str) -> None:
    """A redirect is refused by the rules of a fresh URL."""
    base = parse_web_url("https://example.org/a/x", allow_private=PUBLIC_ONLY)
    with pytest.raises(FetchRefused):
        redirect_target(base, location, allow_private=PUBLIC_ONLY)
