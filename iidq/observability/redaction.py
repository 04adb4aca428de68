"""Credentials inside URLs never leave the process: rows, logs and replies show them redacted."""

import re

_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
# The first words are secret at the end of any name (sslpassword, accessToken), the others as a word of their own.
_SECRET_PARAMETER = re.compile(
    r"([?&;](?:[\w.-]*(?:api[-_]?key|access[-_]?key|token|secret|password|passwd|signature|credential)"
    r"|(?:[\w.-]*[-_.])?(?:d?key|project[-_]?id|pass|pwd|sig|auth))=)[^&#\s]+",
    re.IGNORECASE,
)


# As Infura, Alchemy (…/v3/<key>), Ankr (…/eth/<key>) and QuickNode (…/<key>/) have it.
_PATH_KEY = re.compile(r"(?<=/v[0-9]/)[\w.-]{16,}|(?<=[^/]/)[\w-]{24,}(?=[/?#]|$)")


def redact_endpoint(url: str) -> str:
    """As :func:`redact_url` for a JSON-RPC endpoint, whose key may be a segment of its path."""
    return _PATH_KEY.sub("***", redact_url(url))


def redact_url(text: str) -> str:
    """Replace user info and secret query parameters in every URL of ``text`` by ``***``."""
    return _SECRET_PARAMETER.sub(r"\1***", _USERINFO.sub("***@", text))
