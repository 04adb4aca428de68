r"""Header values of the form ``value; name="text"``: Content-Type and Content-Disposition. Pure.

The standard library's and python-multipart's readers cut ``C:\dir\name`` down to ``name``; here the text stays as
sent, so that the rules for file names see it. What browsers really send follows the WHATWG form encoding: ``"``,
CR and LF as ``%22``, ``%0D``, ``%0A``, and backslashes as they are.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

# The second form of the quoted text is a fallback for names that end in a backslash that escapes nothing.
_PARAMETER = re.compile(
    r""";[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"(?=[ \t]*(?:;|\Z))|"([^"]*)"|([^\s";]*))[ \t]*""",
    re.DOTALL,
)
_WHATWG_ESCAPE = re.compile(r"%(22|0[0-9A-F]|1[0-9A-F])")


class HeaderValue(NamedTuple):
    """The value before the first ``;`` in lower case, and its parameters by lower-case name."""

    value: str
    parameters: dict[str, str]


class Disposition(NamedTuple):
    """What a form part is called, and the file name it was sent under (None for a plain field)."""

    name: str
    file_name: str | None


def parse_header(text: str) -> HeaderValue:
    """Split a header value. Raises :class:`ValueError` where it is malformed or a parameter stands twice."""
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
        # Only these two pairs are escapes in the wild: a lone backslash belongs to the name.
        plain = unescaped if quoted is None else re.sub(r'\\(["\\])', r"\1", quoted)
        parameters[name.lower()] = token if plain is None else plain
        position = match.end()
    return HeaderValue(value.strip(" \t").lower(), parameters)


def parse_disposition(header: bytes) -> Disposition:
    """A form part's ``Content-Disposition`` (RFC 7578, section 4.2); ``filename*`` (RFC 5987) is read too, and wins.

    Raises :class:`ValueError` where it is no form-data, has no name, or is not UTF-8.
    """
    value, parameters = parse_header(header.decode())
    if value != "form-data" or "name" not in parameters:
        raise ValueError("not form-data with a name")
    file_name = parameters.get("filename")
    if file_name is not None:
        file_name = _WHATWG_ESCAPE.sub(lambda match: chr(int(match[1], 16)), file_name)
    if "filename*" in parameters:
        file_name = _extended(parameters["filename*"])
    return Disposition(_WHATWG_ESCAPE.sub(lambda match: chr(int(match[1], 16)), parameters["name"]), file_name)


def _extended(text: str) -> str:
    charset, _, encoded = text.partition("'")
    if charset.lower() not in ("utf-8", "iso-8859-1") or "'" not in encoded:
        raise ValueError("malformed filename*")
    return unquote_to_bytes(encoded.partition("'")[2]).decode(charset)
