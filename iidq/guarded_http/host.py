"""One spelling per host, so that two texts of the same host are compared as equals."""

import re

from iidq.guarded_http.ip_addresses import literal_address

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def canonical_host(text: str) -> str:
    """Lower-case name without the root's dot, or an address in its plain notation (IPv6 without brackets).

    Raises :class:`ValueError` for anything else; names are ASCII (international ones in their ``xn--`` form),
    because every mapping from other scripts can turn an innocent text into an address.
    """
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if ":" not in text:
            raise ValueError("brackets belong around an IPv6 address")
    elif ":" in text:
        raise ValueError("an IPv6 address belongs in brackets")
    address = literal_address(text)
    if address is not None:
        return str(address)
    name = text.lower().removesuffix(".")
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise ValueError("not a host name")
    return name
