"""Redaction of credentials in URLs for rows, logs and replies. Pure."""

import re

_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
# The first words are secret at the end of any name (sslpassword, accessToken), the others as separate words.
_SECRET_PARAMETER = re.compile(
    r"([?&;](?:[\w.-]*(?:api[-_]?key|access[-_]?key|token|secret|password|passwd|signature|credential)"
    r"|(?:[\w.-]*[-_.])?(?:d?key|project[-_]?id|pass|pwd|sig|auth))=)[^&#\s]+",
    re.IGNORECASE,
)


# Keys of Infura, Alchemy (…/v3/<key>), Ankr (…/eth/<key>) and QuickNode (…/<key>/).
_PATH_KEY = re.compile(r"(?<=/v[0-9]/)[\w.-]{16,}|(?<=[^/]/)[\w-]{24,}(?=[/?#]|$)")


def redact_endpoint(url: str) -> str:
    """Redact the URL of a JSON-RPC endpoint; its key may be a segment of the path."""
    return _PATH_KEY.sub("***", redact_url(url))


def redact_url(text: str) -> str:
    """Replace user info and secret query parameters in every URL of ``text`` by ``***``."""
    return _SECRET_PARAMETER.sub(r"\1***", _USERINFO.sub("***@", text))
