"""A real sample file for the demo and tests."""

import io
import random
import struct
import wave

_SAMPLE_RATE_HZ = 22_050
_NOTES = 16
_NOTE_SAMPLES = 11_025
_AMPLITUDE = 12_000
# A minor pentatonic scale over two octaves, in Hz: any order of its notes is a tune.
_SCALE_HZ = (220, 262, 294, 330, 392, 440, 523, 587, 659, 784)


def sample_audio(seed: int = 0) -> bytes:
    """Return a playable WAV file, eight seconds, 353 kB; the same bytes for the same seed on every machine.

    The samples are computed in integers and not compressed, so that no version of a library changes the bytes.
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
