"""Decodes sounds: WAV with the standard library and numpy, everything else with soundfile where it is installed."""

from __future__ import annotations

import importlib.util
import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model import InvalidParameters, TooLarge, UnsupportedMedia

MAX_SECONDS = 3600
"""A compressed file may hold days; what it claims is read before it is unpacked."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound with one channel.

    Attributes:
        samples: From -1 to 1, shape `(samples,)`.
        rate: Samples a second.
    """

    samples: Samples
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate


def decode_sound(content: bytes) -> Sound:
    """The sound in a file; several channels are averaged.

    Raises:
        InvalidParameters: it is broken, empty, or no sound.
        UnsupportedMedia: it is not WAV, and the image has no soundfile.
        TooLarge: it is longer than MAX_SECONDS.
    """
    sound = _decode_wav(content) if content[:4] == b"RIFF" else _decode_other(content)
    if len(sound.samples) == 0:
        raise InvalidParameters("The sound is empty: it has no samples.")
    if not np.isfinite(sound.samples).all():
        raise InvalidParameters("The sound is broken: it has samples that are not numbers.")
    return sound


def resample(sound: Sound, rate: int) -> Sound:
    """The sound at another rate, band-limited, by cutting or padding its spectrum.

    Args:
        sound: The sound.
        rate: Samples a second.
    """
    if sound.rate == rate:
        return sound
    count = max(1, round(len(sound.samples) * rate / sound.rate))
    spectrum = np.fft.rfft(sound.samples)
    fitted = np.zeros(count // 2 + 1, dtype=spectrum.dtype)
    kept = min(len(fitted), len(spectrum))
    fitted[:kept] = spectrum[:kept]
    samples = np.fft.irfft(fitted, count) * (count / len(sound.samples))
    return Sound(samples.astype(np.float32), rate)


def encode_wav(samples: Samples, rate: int) -> bytes:
    """A WAV file (16 bits) of samples from -1 to 1, shape `(samples,)`."""
    data = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, _PCM, 1, rate, rate * 2, 2, 16, b"data", len(data))  # fmt: skip
    return head + data


def _decode_wav(content: bytes) -> Sound:
    """RIFF/WAVE with integer or floating samples (Microsoft and IBM, 1991)."""
    try:
        chunks = _read_chunks(content)
        form = chunks[b"fmt "]
        kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", form[:16])
        if kind == _EXTENSIBLE:
            (kind,) = struct.unpack("<H", form[24:26])
        data = chunks[b"data"]
    except (KeyError, struct.error):
        raise InvalidParameters("The WAV file is broken: it has no format or no data.") from None
    if not (1 <= channels <= 64 and 1 <= rate <= 768_000):
        raise InvalidParameters("The WAV file is broken: its channels or its rate cannot be.")
    samples = _read_samples(data, kind, bits)
    samples = samples[: len(samples) // channels * channels].reshape(-1, channels).mean(axis=1)
    _require_short(len(samples), rate)
    return Sound(np.ascontiguousarray(samples, dtype=np.float32), rate)


def _read_chunks(content: bytes) -> dict[bytes, bytes]:
    chunks: dict[bytes, bytes] = {}
    place = 12
    while place + 8 <= len(content):
        name, size = struct.unpack("<4sI", content[place : place + 8])
        # A size that reaches beyond the file is what programs write that stream to a pipe.
        chunks.setdefault(name, content[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    return chunks


def _read_samples(data: bytes, kind: int, bits: int) -> Samples:
    width = bits // 8
    data = data[: len(data) // width * width] if width else b""
    if kind == _FLOAT and bits in (32, 64):
        floats: NDArray[np.floating[Any]] = np.frombuffer(data, dtype=f"<f{width}")
        return floats.astype(np.float32)
    if kind == _PCM and bits == 8:
        return (np.frombuffer(data, dtype=np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if kind == _PCM and bits in (16, 32):
        return np.frombuffer(data, dtype=f"<i{width}").astype(np.float32) / np.float32(2 ** (bits - 1))
    if kind == _PCM and bits == 24:
        wide = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    raise InvalidParameters(f"The WAV file has {bits}-bit samples of kind {kind}; send 16-bit PCM.")


def _decode_other(content: bytes) -> Sound:
    if importlib.util.find_spec("soundfile") is None:
        raise UnsupportedMedia("This server reads WAV only; convert the sound to WAV, 16-bit PCM.")
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            _require_short(file.frames, file.samplerate)
            samples = file.read(dtype="float32", always_2d=True).mean(axis=1)
            return Sound(samples, file.samplerate)
    except (RuntimeError, ValueError, TypeError) as problem:
        raise InvalidParameters(
            "The bytes are not a sound that can be decoded (WAV, FLAC, OGG, MP3)."
        ) from problem


def _require_short(count: int, rate: int) -> None:
    if count > MAX_SECONDS * rate:
        raise TooLarge(f"The sound is longer than {MAX_SECONDS} seconds.")
