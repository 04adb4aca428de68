"""A real sample file and its signed manifest, for the demo and tests."""

import io
import json
import random
import struct
import wave
from datetime import UTC, datetime

_SAMPLE_RATE_HZ = 22_050
_NOTES = 16
_NOTE_SAMPLES = 11_025
_AMPLITUDE = 12_000
# A minor pentatonic scale over two octaves, in Hz: any order of its notes is a tune.
_SCALE_HZ = (220, 262, 294, 330, 392, 440, 523, 587, 659, 784)


def sample_audio(seed: int = 0) -> bytes:
    """A playable WAV file, eight seconds of a tune, 353 kB; the same bytes for the same seed on every machine.

    Integers alone make the sound, and nothing is compressed: the bytes hang on no library's version.
    """
    notes = random.Random(seed)  # noqa: S311 - a tune, not a secret
    samples = bytearray()
    for _ in range(_NOTES):
        period = _SAMPLE_RATE_HZ // notes.choice(_SCALE_HZ)
        for place in range(_NOTE_SAMPLES):
            triangle = abs(4 * _AMPLITUDE * (place % period) // period - 2 * _AMPLITUDE) - _AMPLITUDE
            samples += struct.pack("<h", triangle * (_NOTE_SAMPLES - place) // _NOTE_SAMPLES)
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(_SAMPLE_RATE_HZ)
        audio.writeframes(bytes(samples))
    return file.getvalue()


def make_manifest(
    content_hash: str, creator_key: str, content_uri: str, chain_id: int, *, created_at: datetime | None = None
) -> bytes:
    """A manifest for ``content_hash`` (0x and 64 hex digits), signed by ``creator_key``, as JSON without final newline.

    The signed message is the hash's 32 bytes, not its text, with the prefix of EIP-191 version 0x45 before them.
    """
    from eth_account import Account
    from eth_account.messages import encode_defunct

    account = Account.from_key(creator_key)
    signature = account.sign_message(encode_defunct(hexstr=content_hash)).signature.hex().removeprefix("0x")
    time = (created_at or datetime.now(UTC)).astimezone(UTC)
    manifest = {
        "version": "1.0",
        "algorithm": "sha256",
        "content_hash": content_hash,
        "content_uri": content_uri,
        "creator_did": f"did:pkh:eip155:{chain_id}:{account.address}",
        "created_at": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "signature": "0x" + signature,
        "attestations": [],
    }
    return json.dumps(manifest, indent=2).encode()
