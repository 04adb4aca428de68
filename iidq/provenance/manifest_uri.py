"""The URI of a manifest: ``ipfs://CID``, ``ipfs://CID/path`` or an http(s) URL.

Only the text is judged here. The rules and refusal codes of http(s) URLs are in :mod:`iidq.guarded_http.url`. One code
is added for ``ipfs``: ``fetch.refused.cid``, for a CID that cannot be verified here.
"""

from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.guarded_http.url import HIERARCHY, WebUrl, refused, split_scheme, web_url
from iidq.provenance.ipfs.cid import Cid, parse_cid

MAX_PATH_SEGMENTS = 16
_EXPECTED = "ipfs://CID, http:// or https://"


@dataclass(frozen=True, slots=True)
class IpfsUri:
    """An immutable file on IPFS."""

    cid: Cid
    """The CID of the file, or of a directory above the file."""
    path: tuple[str, ...] = ()
    """Names of entries from the directory down to the file, decoded; at most 16."""

    def __str__(self) -> str:
        return "/".join((f"ipfs://{self.cid.text}", *(quote(segment, safe="") for segment in self.path)))


def parse_manifest_uri(text: str, *, allow_private: FetchPolicy) -> IpfsUri | WebUrl:
    """Parse a manifest's URI; raise :class:`FetchRefused` naming the rule and the expected form."""
    scheme, rest = split_scheme(text, expected=_EXPECTED)
    if scheme == "ipfs":
        return _ipfs_uri(rest)
    return web_url(scheme, rest, allow_private, expected=_EXPECTED)


def _ipfs_uri(rest: str) -> IpfsUri:
    match = HIERARCHY.fullmatch(rest)
    if match is None:
        raise refused("uri", "expected ipfs://CID or ipfs://CID/path")
    if match["query"] is not None or match["fragment"] is not None:
        raise refused("uri", "an ipfs URI has neither query nor fragment; expected ipfs://CID or ipfs://CID/path")
    cid = parse_cid(match["authority"])
    encoded = match["path"].strip("/")
    segments = tuple(map(_path_segment, encoded.split("/"))) if encoded else ()
    if len(segments) > MAX_PATH_SEGMENTS:
        raise refused("uri", f"the path is too deep; expected at most {MAX_PATH_SEGMENTS} segments")
    return IpfsUri(cid, segments)


def _path_segment(encoded: str) -> str:
    try:
        segment = unquote_to_bytes(encoded).decode("utf-8")
    except UnicodeDecodeError:
        raise refused("uri", "the path is not UTF-8") from None
    if segment in ("", ".", "..") or "/" in segment or "\0" in segment:
        raise refused("uri", "the path has an empty, '.' or '..' segment; expected plain names")
    return segment
