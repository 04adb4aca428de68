"""The client's address and the path prefix behind reverse proxies."""

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.routing import Route

from iidq.errors import SettingsFault
from iidq.setting_values.checks import OWN_PATHS, parse_prefix
from iidq.settings import Settings, load_settings
from iidq.web.app import create_app
from iidq.web.guard.proxies import ClientAddresses, PathPrefixes, rate_limit_client

PROXIES = ("10.0.0.0/8", "192.0.2.7", "fd00::/8")


def client(peer: str, *forwarded: str, trusted: tuple[str, ...] = PROXIES) -> str:
    headers = [(b"x-forwarded-for", field.encode("latin-1")) for field in forwarded]
    scope: dict[str, Any] = {"client": (peer, 4711), "headers": headers}
    return ClientAddresses(trusted).of(scope)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9, 192.0.2.7"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9", "10.1.1.1"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.9,,"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, _hidden"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("fd00::1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("::ffff:203.0.113.9", ["1.1.1.1"], "203.0.113.9"),
        ("10.0.0.1", ["x" * 100_000], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.009"], "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_is(peer: str, forwarded: list[str], expected: str) -> None:
    """The client is the last forwarded address outside the trusted proxies; a malformed entry ends the search.

    An untrusted peer's header does not count.
    """
    assert client(peer, *forwarded) == expected


def test_without_trusted_proxies_the_header_is_worth_nothing() -> None:
    """Without trusted proxies, a forwarded address gives no access to another client's limit."""
    assert client("127.0.0.1", "203.0.113.9", trusted=()) == "127.0.0.1"


def test_an_unknown_caller_is_nobody() -> None:
    """A caller without an address, as over a Unix socket, is no error."""
    assert ClientAddresses(PROXIES).of({"client": None, "headers": []}) == ""
    assert ClientAddresses(PROXIES).of({"headers": []}) == ""


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=30), max_size=5), st.ip_addresses())
def test_nothing_before_the_client_can_change_who_it_is(forged: list[str], address: Any) -> None:
    """Forged entries do not change the client: the trusted proxy's entry comes last and decides."""
    real = client("10.0.0.1", str(address), trusted=("10.0.0.1/32",))
    assert client("10.0.0.1", *forged, str(address), trusted=("10.0.0.1/32",)) == real


def test_ipv6_clients_are_counted_by_their_network() -> None:
    """IPv6 clients are counted by /64, the network of a subscriber; IPv4 addresses are counted one by one."""
    assert rate_limit_client("2001:db8:1:2:3::4") == rate_limit_client("2001:db8:1:2:ffff::") == "2001:db8:1:2::/64"
    assert rate_limit_client("2001:db8:1:3::") != rate_limit_client("2001:db8:1:2::")
    assert rate_limit_client("203.0.113.9") == "203.0.113.9"
    assert rate_limit_client("") == ""


OWN = ("/", "/api/docs", "/jobs/{job_id}", "/livez")
HARMLESS = re.compile(r"(/[A-Za-z0-9._~:@+-]+)*")

NO_PREFIX = [
    *(
        "//",
        "//evil.example",
        "///x",
        "/a//b",
        "/iidq//",
        "https://evil.example",
        "/\\evil.example",
        "\\\\evil.example",
    ),
    *("..", "/..", "/../x", "/a/../b", "/a/..", "/.", "/./a", "/%2e%2e", "/a%2fb", "/a?b", "/a#b", "/a;b", "/a b", " "),
    *("/a\r\nSet-Cookie: x=1", "/a\n", "/a\tb", "/a\x00", "/a\x7f", "/ä", "/a\u2028", "/\u2025"),
    *('/"><script>alert(1)</script>', "/'onload='", "/<a>", "/a&b", "/{{version}}", "/" + "a" * 200),
]


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        *((text, "/iidq") for text in ("iidq", "/iidq", "iidq/", "/iidq/")),
        *(("", ""), ("/", ""), ("a/b", "/a/b"), ("/a/b/", "/a/b"), ("/...", "/..."), ("/.a", "/.a")),
        ("/api/v1/namespaces/x/services/http:iidq:3001/proxy", "/api/v1/namespaces/x/services/http:iidq:3001/proxy"),
        ("/user/ada@example.org", "/user/ada@example.org"),
    ],
)
def test_a_prefix_is_written_in_one_way(text: str, prefix: str) -> None:
    """A prefix begins with a slash and ends without one, for any slashes around the value."""
    assert parse_prefix(text) == prefix


@pytest.mark.parametrize("text", NO_PREFIX)
def test_what_is_no_prefix_stops_the_start(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """``ROOT_PATH`` with a host, a query, dots, control characters or markup stops the start with a line without the
    value.
    """
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsFault) as caught:
        load_settings(root_path=text)
    assert re.fullmatch(
        r"ROOT_PATH=\(hidden\) cannot be used; expected a path such as /iidq: [ -~]+", caught.value.message
    )


@given(st.one_of(st.text(), st.text('/.a%\\"<\r\n,:@', max_size=12)))
@example("//evil.example")
def test_no_text_becomes_another_host_or_markup(text: str) -> None:
    """A prefix is empty or single slashes with harmless characters between, and parses to itself."""
    try:
        prefix = parse_prefix(text)
    except ValueError:
        return
    assert HARMLESS.fullmatch(prefix)
    assert not {".", ".."} & set(prefix.split("/"))
    assert parse_prefix(prefix) == prefix


def take(
    path: str, *told: str, root_path: str = "", peer: str | None = "10.0.0.1", server: str = ""
) -> tuple[str, str]:
    """Return the served path, and the prefix of the reply's URLs."""
    headers = [(b"x-forwarded-prefix", value.encode("latin-1")) for value in told]
    scope: dict[str, Any] = {"path": path, "root_path": server, "headers": headers, "client": peer and (peer, 4711)}
    prefix = PathPrefixes(root_path, ["10.0.0.0/8"], OWN).take(scope, dict(headers))
    # Starlette's router would remove the prefix a second time.
    assert scope["root_path"] == ""
    return scope["path"], prefix


@pytest.mark.parametrize(
    ("path", "root_path", "served"),
    [
        ("/iidq/api/docs", "/iidq", "/api/docs"),
        ("/api/docs", "/iidq", "/api/docs"),
        ("/iidq", "/iidq", "/"),
        ("/iidq/", "/iidq", "/"),
        ("/", "/iidq", "/"),
        ("/iidq/unknown", "/iidq", "/iidq/unknown"),
        ("/iidq/iidq/livez", "/iidq", "/iidq/iidq/livez"),
        ("/iidqs/livez", "/iidq", "/iidqs/livez"),
        ("/a/b/livez", "/a/b", "/livez"),
        ("/b/livez", "/a/b", "/b/livez"),
        # A prefix named like the service's own paths.
        ("/api/docs", "/api", "/api/docs"),
        ("/api/api/docs", "/api", "/api/docs"),
        ("/api/livez", "/api", "/livez"),
        ("/jobs/x", "/jobs", "/jobs/x"),
        ("/jobs/jobs/x", "/jobs", "/jobs/x"),
    ],
)
def test_root_path_is_taken_off_where_it_is(path: str, root_path: str, served: str) -> None:
    """Proxies that keep the prefix and proxies that strip the prefix lead to the same path."""
    assert take(path, root_path=root_path) == (served, root_path)


def test_a_root_path_that_hides_an_endpoint_stops_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """``ROOT_PATH`` equal to a path of the service stops the start; a longer path is served."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(_env_file=None, database_url="postgresql://x/y", root_path="/api")
    paths = {route.path for route in create_app(settings).routes if isinstance(route, Route)}
    assert {path for path in paths if "{" not in path} == OWN_PATHS | {"/"}
    for path in OWN_PATHS:
        with pytest.raises(SettingsFault, match=r"ROOT_PATH=.* expected a path that is none of the service's own"):
            load_settings(root_path=f"{path}/")
        assert load_settings(root_path=f"{path}/x/y").root_path == f"{path}/x/y"


def test_the_servers_own_root_path_counts() -> None:
    """``uvicorn --root-path /iidq`` has the same effect as the variable."""
    assert take("/iidq/api/docs", server="/iidq") == ("/api/docs", "/iidq")
    assert take("/iidq/api/docs", server="/iidq/", root_path="/other") == ("/api/docs", "/iidq")


@pytest.mark.parametrize(
    ("told", "prefix"),
    [
        ([], "/root"),
        (["/iidq"], "/iidq"),
        (["iidq/"], "/iidq"),
        (["/"], ""),
        ([""], "/root"),
        ([" , "], "/root"),
        (["/outer, /iidq"], "/outer/iidq"),
        (["/outer", "/iidq"], "/outer/iidq"),
        (["/outer/", "/", "/iidq"], "/outer/iidq"),
        (["/iidq", "//evil.example"], "/root"),
        (["/iidq, .."], "/root"),
        (["/" + "a" * 150, "/" + "a" * 150], "/root"),
        *(([text], "/root") for text in NO_PREFIX if text.isascii()),
    ],
)
def test_the_header_of_a_trusted_proxy_takes_the_place_of_root_path(told: list[str], prefix: str) -> None:
    """The header of a trusted proxy replaces ROOT_PATH: values are joined in order; a bad value voids the header."""
    assert take("/livez", *told, root_path="/root") == ("/livez", prefix)


def test_a_stranger_has_no_prefix() -> None:
    """Neither an untrusted peer nor a caller without an address chooses the prefix."""
    for peer in ("192.0.2.1", None):
        assert take("/livez", "/iidq", root_path="/root", peer=peer) == ("/livez", "/root")


def test_the_header_takes_nothing_off_the_path() -> None:
    """A client's header forwarded by nginx cannot reach /api under a name unknown to nginx."""
    assert take("/x/api/docs", "/x") == ("/x/api/docs", "/x")
    assert take("/root/api/docs", "/outer/root", root_path="/root") == ("/api/docs", "/outer/root")
