"""The case that the evidence of a verdict makes, with a headline. Pure.

``iidq/web/pages/verify/verdict.js`` has the same rules for the browser; a test compares both over all evidence.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from iidq.provenance.ethereum.address import ZERO_ADDRESS

Conclusion = Literal[
    "genuine",
    "manifestUriDiffers",
    "revoked",
    "otherManifest",
    "manifestDiffers",
    "otherSigner",
    "notRegistered",
    "unknownFile",
]

HEADLINES: Final[Mapping[Conclusion, str]] = {
    "genuine": "this is what its creator registered",
    "manifestUriDiffers": "its creator registered and signed this file, but with another manifest than the one given",
    "revoked": "this file was registered, and its creator has withdrawn the registration",
    "otherManifest": "this file is registered, but the manifest given describes another file",
    "manifestDiffers": "this file is registered, but the registered manifest describes another file",
    "otherSigner": "this file is registered, but the manifest is signed by somebody else",
    "notRegistered": "the manifest describes this file, but the file is not registered",
    "unknownFile": "this file is not registered, and the manifest describes another one: it was changed, or is unknown",
}


def conclude(*, registered: bool, revoked: bool, hash_ok: bool, creator_ok: bool, uri_ok: bool) -> Conclusion:
    """Return the case. The registry comes first: a registered file is never changed or unknown."""
    if not registered:
        return "notRegistered" if hash_ok else "unknownFile"
    if revoked:
        return "revoked"
    if not hash_ok:
        return "manifestDiffers" if uri_ok else "otherManifest"
    if not creator_ok:
        return "otherSigner"
    return "genuine" if uri_ok else "manifestUriDiffers"


def conclusion_of(result: Mapping[str, Any]) -> Conclusion | None:
    """Return the case of a result or proof of any version; None if members are missing."""
    onchain, proven = result.get("onchain"), result.get("verification")
    names = ("fileHashMatchesManifest", "creatorMatchesOnchain", "manifestURIMatchesOnchain")
    flags: Any = proven
    if not isinstance(proven, dict):
        names, flags = ("manifestHashOk", "creatorOk", "manifestOk"), result.get("checks")
    if not isinstance(onchain, dict) or not isinstance(flags, dict):
        return None
    creator, uri = onchain.get("creator"), onchain.get("manifestURI")
    held = [flags.get(name) for name in names]
    if not isinstance(creator, str) or not isinstance(uri, str) or not all(isinstance(flag, bool) for flag in held):
        return None
    hash_ok, creator_ok, uri_ok = map(bool, held)
    registered = creator != ZERO_ADDRESS
    return conclude(
        registered=registered,
        revoked=registered and not uri,
        hash_ok=hash_ok,
        creator_ok=creator_ok,
        uri_ok=uri_ok,
    )
