"""Read a manifest strictly, refusing ambiguous bytes; make and sign a new manifest."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from iidq.errors import ManifestFault
from iidq.notation import HEX_BYTES
from iidq.portable_values import is_storable, iso_milliseconds
from iidq.strict_json import StrictJsonFault, parse_strictly

MAX_SIGNATURE_BYTES = 16_384
MAX_DID_CHARACTERS = 2_048

_CONTENT_HASH = re.compile(r"0[xX][0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The verified members of a manifest."""

    content_hash: str
    """The hash of the content that the manifest describes: ``0x`` and 64 lower-case hex digits."""
    signature: str
    """The creator's signature, as the manifest writes it: ``0x`` and hex bytes, of any length a wallet may produce."""
    creator_did: str | None
    """The creator's DID; None where the manifest names none."""


def parse_manifest(body: bytes) -> Manifest:
    """Read a manifest; raise :class:`ManifestFault` with a code per kind of fault.

    ``content_hash`` may have any case, prefix included (``0X0ABE…``), and is lowered; a missing prefix or another
    length is a fault. Unknown members are ignored. RFC 8259: UTF-8 without a byte order mark; repeated member names are
    a fault, as readers differ on them (section 4).
    """
    fields = _parse_object(body)
    return Manifest(
        content_hash=_content_hash(fields),
        signature=_signature(fields),
        creator_did=_creator_did(fields),
    )


def make_manifest(
    content_hash: str, creator_key: str, content_uri: str, chain_id: int, *, created_at: datetime | None = None
) -> bytes:
    """Return a manifest for ``content_hash`` (0x and 64 hex digits), signed by ``creator_key``, as JSON.

    The signed message is the 32 bytes of the hash, not their text, behind the prefix of EIP-191 version 0x45.
    """
    from eth_account import Account  # takes a second to import, and only `iidq register` and the demo sign
    from eth_account.messages import encode_defunct

    account = Account.from_key(creator_key)
    signature = account.sign_message(encode_defunct(hexstr=content_hash)).signature.hex().removeprefix("0x")
    manifest = {
        "version": "1.0",
        "algorithm": "sha256",
        "content_hash": content_hash,
        "content_uri": content_uri,
        "creator_did": f"did:pkh:eip155:{chain_id}:{account.address}",
        "created_at": iso_milliseconds(created_at or datetime.now(UTC)),
        "signature": "0x" + signature,
        "attestations": [],
    }
    return json.dumps(manifest, indent=2).encode()


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        value = parse_strictly(body)
    except StrictJsonFault as fault:
        raise ManifestFault(f"the manifest {fault}", code=f"manifest.{fault.kind}") from None
    if not isinstance(value, dict):
        raise ManifestFault(f"the manifest is {_json_type(value)}; expected a JSON object", code="manifest.not_object")
    return value


def _content_hash(fields: dict[str, Any]) -> str:
    value = _text(fields, "content_hash", "0x and 64 hex digits")
    if not _CONTENT_HASH.fullmatch(value):
        raise ManifestFault(
            f"the manifest's content_hash is {_shown(value)}; expected 0x and 64 hex digits",
            code="manifest.content_hash",
        )
    return value.lower()


def _signature(fields: dict[str, Any]) -> str:
    value = _text(fields, "signature", "0x and the signature's bytes in hex")
    if len(value) > 2 + 2 * MAX_SIGNATURE_BYTES or not HEX_BYTES.fullmatch(value):
        raise ManifestFault(
            f"the manifest's signature is {_shown(value)}; expected 0x and the signature's bytes in hex",
            code="manifest.signature",
        )
    return value


def _creator_did(fields: dict[str, Any]) -> str | None:
    if fields.get("creator_did") is None:
        return None
    value = _text(fields, "creator_did", "a DID")
    if len(value) > MAX_DID_CHARACTERS or not is_storable(value):
        raise ManifestFault(
            f"the manifest's creator_did is {_shown(value)}; expected a DID of at most {MAX_DID_CHARACTERS} characters",
            code="manifest.creator_did",
        )
    return value


def _text(fields: dict[str, Any], name: str, expected: str) -> str:
    if name not in fields:
        raise ManifestFault(f"the manifest has no {name}; expected {expected}", code=f"manifest.{name}")
    value = fields[name]
    if not isinstance(value, str):
        raise ManifestFault(
            f"the manifest's {name} is {_json_type(value)}; expected {expected}", code=f"manifest.{name}"
        )
    return value


def _shown(text: str) -> str:
    shown = ascii(text[:80])
    return shown if len(shown) <= 82 and len(text) <= 80 else f"{shown[:24]}… ({len(text):,} characters)"


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
