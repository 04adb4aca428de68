"""Manifest URIs: accepted forms, and refusals by the text alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import FetchRefused
from iidq.guarded_http.fetch_policy import PUBLIC_ONLY
from iidq.guarded_http.url import WebUrl
from iidq.provenance.ipfs.cid import DAG_PB, RAW
from iidq.provenance.manifest_uri import IpfsUri, parse_manifest_uri

CID = "QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o"

HOSTILE = {
    "": "uri",
    " ": "uri",
    "http://example.org/" + "a" * 2048: "uri",
    " http://example.org/": "uri",
    "http://example.org/\r\nHost: x": "uri",
    "http://exa\tmple.org/": "uri",
    "http://example.org\\@127.0.0.1/": "uri",
    "http:\\\\127.0.0.1\\": "uri",
    "http://127.0.0.1\x00.example.org/": "uri",
    "http://127.0.0.1\u00a0/": "uri",
    "example.org/manifest.json": "scheme",
    "//example.org/manifest.json": "scheme",
    "/etc/passwd": "scheme",
    "file:///etc/passwd": "scheme",
    "ftp://example.org/x": "scheme",
    "gopher://127.0.0.1:6379/_FLUSHALL": "scheme",
    "dict://127.0.0.1:11211/stat": "scheme",
    "ldap://127.0.0.1/": "scheme",
    "data:application/json,{}": "scheme",
    "javascript:alert(1)": "scheme",
    "ipns://example.org": "scheme",
    "jar:http://127.0.0.1!/": "scheme",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/": "scheme",
    "http:example.org": "host",
    "http:/example.org": "host",
    "http:///127.0.0.1/": "host",
    "https://": "host",
    "http://?x": "host",
    "http://:80/": "host",
    "http://exa mple.org/".replace(" ", "%20"): "host",
    "http://%31%32%37.0.0.1/": "address",
    "http://127.0.0.1%2f.example.org/": "host",
    "http://①②⑦.⓪.⓪.①/": "host",
    "http://127。0。0。1/": "host",
    "http://ⅼocalhost/": "host",
    "http://-x.example/": "host",
    "http://a..b/": "host",
    "http://example.org:80:80/": "host",
    "http://example.org:http/": "host",
    "http://[example.org]/": "host",
    "http://user@example.org/": "credentials",
    "http://user:password@example.org/": "credentials",
    "http://@127.0.0.1/": "credentials",
    "http://example.org@127.0.0.1/": "credentials",
    "http://127.0.0.1:80@example.org/": "credentials",
    "http://example.org:22/": "port",
    "http://example.org:443/": "port",
    "https://example.org:80/": "port",
    "https://example.org:8443/": "port",
    "http://example.org:0/": "port",
    "http://example.org:65616/": "port",
    "http://8.8.8.8:8080/": "port",
    "http://[2606:4700::1111]:6379/": "port",
    "http://127.0.0.1/": "address",
    "http://127.0.0.1:3001/": "address",
    "https://127.0.0.1/": "address",
    "http://127.1/": "address",
    "http://127.0.1/": "address",
    "http://127.0.0.1./": "address",
    "http://2130706433/": "address",
    "http://0x7f000001/": "address",
    "http://0x7F.0.0.1/": "address",
    "http://0x7f.1/": "address",
    "http://0177.0.0.1/": "address",
    "http://017700000001/": "address",
    "http://127.0.0.0x1/": "address",
    "http://00000127.0.0.1/": "address",
    "http://127.0.0.1.1/": "address",
    "http://256.0.0.1/": "address",
    "http://0/": "address",
    "http://0x/": "address",
    "http://0.0.0.0/": "address",
    "http://10.0.0.1/": "address",
    "http://010.8.8.8/": "address",
    "http://172.16.0.1/": "address",
    "http://192.168.1.1/": "address",
    "http://100.64.0.1/": "address",
    "http://169.254.169.254/latest/meta-data/": "address",
    "http://198.18.0.1/": "address",
    "http://203.0.113.1/": "address",
    "http://224.0.0.1/": "address",
    "http://255.255.255.255/": "address",
    "http://[::]/": "address",
    "http://[::1]/": "address",
    "http://[0:0:0:0:0:0:0:1]/": "address",
    "http://[::ffff:127.0.0.1]/": "address",
    "http://[::ffff:7f00:1]/": "address",
    "http://[::127.0.0.1]/": "address",
    "http://[64:ff9b::7f00:1]/": "address",
    "http://[64:ff9b::10.0.0.1]/": "address",
    "http://[2002:7f00:1::]/": "address",
    "http://[2001:0:7f00:1::1]/": "address",
    "http://[fc00::1]/": "address",
    "http://[fd00:ec2::254]/": "address",
    "http://[fe80::1]/": "address",
    "http://[fe80::1%25eth0]/": "address",
    "http://[ff02::1]/": "address",
    "http://[2001:db8::1]/": "address",
    "http://[::1/": "host",
    "http://::1/": "host",
    "ipfs:" + CID: "uri",
    "ipfs://": "cid",
    "ipfs:///" + CID: "cid",
    "ipfs://ipfs/" + CID: "cid",
    "ipfs://user@" + CID: "cid",
    "ipfs://" + CID + "?x=1": "uri",
    "ipfs://" + CID + "#x": "uri",
    "ipfs://" + CID + "/../x": "uri",
    "ipfs://" + CID + "/a//b": "uri",
    "ipfs://" + CID + "/%2e%2e/x": "uri",
    "ipfs://" + CID + "/a%2fb": "uri",
    "ipfs://" + CID + "/%ff": "uri",
    "ipfs://" + CID + "/a" * 17: "uri",
    "ipfs://" + CID[:-1]: "cid",
}


@pytest.mark.parametrize(("text", "rule"), HOSTILE.items(), ids=range(len(HOSTILE)))
def test_hostile_uris_are_refused_by_their_text(text: str, rule: str) -> None:
    """Every hostile text is refused without a look-up, with the code of the broken rule."""
    with pytest.raises(FetchRefused) as caught:
        parse_manifest_uri(text, allow_private=PUBLIC_ONLY)
    assert caught.value.code == f"fetch.refused.{rule}"
    assert caught.value.message


def test_the_table_is_long() -> None:
    """At least sixty hostile texts are tried."""
    assert len(HOSTILE) >= 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://example.org", WebUrl("http", "example.org", 80, "/")),
        ("HTTPS://Example.ORG:443/a%20b?c=d#e", WebUrl("https", "example.org", 443, "/a%20b?c=d")),
        ("https://example.org./ü?ö", WebUrl("https", "example.org", 443, "/%C3%BC?%C3%B6")),
        ("http://8.8.8.8:/x", WebUrl("http", "8.8.8.8", 80, "/x")),
        ("http://[2606:4700:0::1111]/x", WebUrl("http", "2606:4700::1111", 80, "/x")),
        ("https://example.org?x=/../y", WebUrl("https", "example.org", 443, "/?x=/../y")),
    ],
)
def test_web_urls_are_parsed(text: str, expected: WebUrl) -> None:
    """Scheme and host are lower-case, ports filled in, targets ASCII, fragments dropped."""
    uri = parse_manifest_uri(text, allow_private=PUBLIC_ONLY)
    if "?x" in text:
        assert isinstance(uri, WebUrl)
        assert (uri.host, uri.target.lstrip("/")) == (expected.host, expected.target.lstrip("/"))
    else:
        assert uri == expected


def test_ipfs_uris_are_parsed() -> None:
    """The CID is parsed, and the path is decoded into names; the text form encodes the path again."""
    uri = parse_manifest_uri(f"IPFS://{CID}/a%20b/ü%0a/", allow_private=PUBLIC_ONLY)
    assert isinstance(uri, IpfsUri)
    assert (uri.cid.codec, uri.cid.text, uri.path) == (DAG_PB, CID, ("a b", "ü\n"))
    assert str(uri) == f"ipfs://{CID}/a%20b/%C3%BC%0A"
    assert parse_manifest_uri(f"ipfs://{CID}/", allow_private=PUBLIC_ONLY) == IpfsUri(uri.cid)


def test_version_1_cids_are_accepted() -> None:
    """A raw CID in base32 is an ipfs URI too."""
    text = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    uri = parse_manifest_uri(f"ipfs://{text}", allow_private=PUBLIC_ONLY)
    assert isinstance(uri, IpfsUri)
    assert uri.cid.codec == RAW


@given(st.text(max_size=80) | st.from_regex(r"(https?|ipfs)://[\x20-\x7f]{0,60}", fullmatch=True))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """Any text gives a URI without a private address, or a refusal."""
    try:
        uri = parse_manifest_uri(text, allow_private=PUBLIC_ONLY)
    except FetchRefused as refusal:
        assert refusal.code.startswith("fetch.refused.")
    else:
        assert isinstance(uri, IpfsUri) or uri.port == {"http": 80, "https": 443}[uri.scheme]
