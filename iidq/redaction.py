"""Credentials inside URLs never leave the process: rows, logs and replies show them redacted."""

import re

_USERINFO = re.compile(r"(?<=://)[^/?#@\s]*@")
_SECRET_PARAMETER = re.compile(
    r"([?&;](?:api[-_]?key|apikey|key|token|secret|password|pass|sig|signature|auth|access_token)=)[^&#\s]+",
    re.IGNORECASE,
)


def redact_url(text: str) -> str:
    """Replace user info and secret query parameters in every URL of ``text`` by ``***``."""
    return _SECRET_PARAMETER.sub(r"\1***", _USERINFO.sub("***@", text))
