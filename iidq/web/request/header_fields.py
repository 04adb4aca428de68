r"""Request headers with a special syntax: Content-Type and Content-Disposition, Prefer, Idempotency-Key.

The standard library's and python-multipart's readers cut ``C:\dir\name`` down to ``name``; here the text stays as sent,
so that the rules for file names apply. Browsers follow the WHATWG form encoding: ``"``, CR and LF as
``%22``, ``%0D``, ``%0A``, and backslashes unescaped.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from iidq.errors import FieldFault, InvalidInput
from iidq.queue.job import IdempotencyKey
from iidq.web.guard.access import presented_keys
from iidq.web.request_context import context_of

# The second form of the quoted text is a fallback for names that end in a backslash that escapes nothing.
_PARAMETER = re.compile(
    r""";[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"(?=[ \t]*(?:;|\Z))|"([^"]*)"|([^\s";]*))[ \t]*""",
    re.DOTALL,
)
_WHATWG_ESCAPE = re.compile(r"%(22|0[0-9A-F]|1[0-9A-F])")


class HeaderValue(NamedTuple):
    """A header value of the form ``value; name="text"``."""

    value: str
    """Text before the first ``;``, in lower case."""
    parameters: dict[str, str]
    """Texts by lower-case name."""


class Disposition(NamedTuple):
    """Name of a form part, and the name of its file."""

    name: str
    """Name of the form field."""
    file_name: str | None
    """File name as sent; None for a plain field."""


def parse_header(text: str) -> HeaderValue:
    """Split a header value. Raise :class:`ValueError` if it is malformed or repeats a parameter."""
    value, semicolon, _ = text.partition(";")
    position = len(value)
    parameters: dict[str, str] = {}
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            if semicolon and not text[position:].strip(" \t;"):
                break
            raise ValueError("malformed parameters")
        name, quoted, unescaped, token = match.groups()
        if name.lower() in parameters:
            raise ValueError("a parameter is given twice")
        # Clients send only these two pairs as escapes: a lone backslash belongs to the name.
        plain = unescaped if quoted is None else re.sub(r'\\(["\\])', r"\1", quoted)
        parameters[name.lower()] = token if plain is None else plain
        position = match.end()
    return HeaderValue(value.strip(" \t").lower(), parameters)


def parse_disposition(header: bytes) -> Disposition:
    """Parse a part's ``Content-Disposition`` (RFC 7578, section 4.2); ``filename*`` (RFC 5987) has precedence.

    Raise :class:`ValueError` if it is not form-data, has no name, or is not UTF-8.
    """
    value, parameters = parse_header(header.decode())
    if value != "form-data" or "name" not in parameters:
        raise ValueError("not form-data with a name")
    file_name = parameters.get("filename")
    if file_name is not None:
        file_name = _unescaped(file_name)
    if "filename*" in parameters:
        file_name = _extended(parameters["filename*"])
    return Disposition(_unescaped(parameters["name"]), file_name)


def _unescaped(text: str) -> str:
    return _WHATWG_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def _extended(text: str) -> str:
    charset, _, encoded = text.partition("'")
    if charset.lower() not in ("utf-8", "iso-8859-1") or "'" not in encoded:
        raise ValueError("malformed filename*")
    return unquote_to_bytes(encoded.partition("'")[2]).decode(charset)


MAX_WAIT_SECONDS: Final = 60
"""Longest wait; a longer one is lowered to this, because many proxies cut connections that idle for longer."""

_PREFERENCE = re.compile(
    r"""[\s,]*
    (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)
    (?:\s*=\s*(?P<value>"(?:[^"\\]|\\.)*"|[!#$%&'*+.^_`|~0-9A-Za-z-]+))?
    \s*(?:;[^,";]*(?:"(?:[^"\\]|\\.)*"[^,";]*)*)*
    (?:,|$)""",
    re.VERBOSE,
)
_SECONDS = re.compile(r"[0-9]{1,9}")
_MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Preferences:
    """Preferences of a client (``Prefer``, RFC 7240) that the service honours."""

    wait_seconds: int | None = None
    """Wait for the job's end so long, at most :data:`MAX_WAIT_SECONDS`; None without ``wait``."""
    respond_async: bool = False
    """Reply 202 instead of 200."""

    @property
    def applied(self) -> str:
        """The value of ``Preference-Applied`` (RFC 7240, section 3)."""
        wait = [] if self.wait_seconds is None else [f"wait={self.wait_seconds}"]
        return ", ".join((["respond-async"] if self.respond_async else []) + wait)


NO_PREFERENCES: Final = Preferences()


def read_preferences(request: Request) -> Preferences:
    """Return the preferences in the request's ``Prefer`` fields."""
    if b"prefer" not in context_of(request).headers:
        return NO_PREFERENCES
    return parse_prefer(request.headers.getlist("prefer"))


def parse_prefer(fields: Sequence[str]) -> Preferences:
    """Parse all ``Prefer`` fields of a request.

    Ignore unknown and malformed preferences; of a repeated one the first counts (RFC 7240, section 2).
    """
    text = ",".join(fields)
    if not text or len(text) > _MAX_LENGTH:
        return NO_PREFERENCES
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PREFERENCE.match(text, position)
        if match is None:
            # Skip to the next preference, if any.
            position = text.find(",", position) + 1 or len(text)
            continue
        found.setdefault(match["name"].lower(), (match["value"] or "").strip('"'))
        position = match.end()
    wait = found.get("wait", "")
    return Preferences(
        wait_seconds=min(int(wait), MAX_WAIT_SECONDS) if _SECONDS.fullmatch(wait) else None,
        respond_async=found.get("respond-async") == "",
    )


_IDEMPOTENCY_KEY = "Idempotency-Key"
_KEY_FORM = re.compile(r"[!-~]{1,255}")
KEY_PATTERN = f"^{_KEY_FORM.pattern}$"


def read_idempotency_key(request: Request) -> str | None:
    """Return the value of ``Idempotency-Key``, or None without one. Raise :class:`InvalidInput` for another form."""
    if b"idempotency-key" not in context_of(request).headers:
        return None
    texts = request.headers.getlist(_IDEMPOTENCY_KEY)
    if len(texts) > 1 or not _KEY_FORM.fullmatch(texts[0]):
        fault = "expected one key of 1 to 255 printable ASCII characters, no spaces"
        raise InvalidInput([FieldFault(_IDEMPOTENCY_KEY, fault)])
    return texts[0]


def idempotency_key(request: Request, text: str, endpoint: str, fingerprint: bytes) -> IdempotencyKey:
    """Return the key of a request with this ``fingerprint``.

    The key's scope is the endpoint and the caller (API key, otherwise client address), so guessing another caller's key
    finds nothing.
    """
    keys = presented_keys(request.headers)
    caller = b"key " + keys[0] if keys else b"address " + context_of(request).client_address.encode()
    return IdempotencyKey(hashlib.sha256(f"{endpoint} ".encode() + caller).hexdigest(), text, fingerprint)
