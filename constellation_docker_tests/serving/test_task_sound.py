"""automatic-speech-recognition, and the sounds it reads."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import InferenceClient

from constellation_docker.serving.model import InvalidParameters, TooLarge, UnsupportedMedia
from constellation_docker.serving.tasks.sound import Sound, decode_sound, encode_wav, resample
from constellation_docker_tests.fixtures.model_server import ServedModel, ServeModel

TinyModel = Callable[[str], Path]


def tone(rate: int = 16_000, seconds: float = 0.5, hertz: float = 440) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def wav(samples: np.ndarray, rate: int, width: int, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        scaled = np.repeat(samples.astype(np.float64), channels)
        if width == 1:
            file.writeframes((scaled * 127 + 128).astype(np.uint8).tobytes())
        else:
            whole = (scaled * (2 ** (8 * width - 1) - 1)).astype("<i4")
            file.writeframes(whole.view(np.uint8).reshape(-1, 4)[:, :width].tobytes())
    return out.getvalue()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_of_every_width_is_read(width: int, channels: int) -> None:
    sound = decode_sound(wav(tone(), 16_000, width, channels))
    assert sound.rate == 16_000
    np.testing.assert_allclose(sound.samples, tone(), atol=0.02 if width == 1 else 1e-4)


def test_wav_of_floats_is_read() -> None:
    data = tone().tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 0, b"WAVE", b"fmt ", 16, 3, 1, 16_000, 64_000, 4, 32, b"data", 0xFFFFFFFF)  # fmt: skip
    np.testing.assert_array_equal(decode_sound(head + data).samples, tone())


@pytest.mark.parametrize(("kind", "tolerance"), [("FLAC", 1e-4), ("OGG", 0.05), ("MP3", 0.1)])
def test_compressed_sounds_are_read_where_soundfile_is_installed(kind: str, tolerance: float) -> None:
    soundfile = pytest.importorskip("soundfile")
    out = io.BytesIO()
    soundfile.write(out, tone(), 16_000, format=kind)
    sound = decode_sound(out.getvalue())
    assert sound.rate == 16_000
    np.testing.assert_allclose(sound.samples[1000:7000], tone()[1000:7000], atol=tolerance)


def test_what_is_written_is_read_again() -> None:
    np.testing.assert_allclose(decode_sound(encode_wav(tone(), 16_000)).samples, tone(), atol=1e-4)


def test_another_rate_is_resampled_and_keeps_its_pitch() -> None:
    sound = resample(Sound(tone(44_100, 1.0), 44_100), 16_000)
    assert sound.rate == 16_000 and len(sound.samples) == 16_000
    np.testing.assert_allclose(sound.samples[200:-200], tone(16_000, 1.0)[200:-200], atol=1e-3)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (wav(tone(), 16_000, 2)[:20], InvalidParameters),
        (wav(tone(), 16_000, 2)[:44], InvalidParameters),
        (b"RIFF" + bytes(60), InvalidParameters),
        (wav(np.zeros(4), 1, 1)[:40] + struct.pack("<I", 4000) + bytes(4000), TooLarge),
        (b"ID3 an mp3", (UnsupportedMedia, InvalidParameters)),
    ],
)
def test_broken_and_endless_sounds_are_refused(content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        decode_sound(content)


@pytest.fixture(scope="module")
def server(serve_model: ServeModel, tiny_model: TinyModel) -> ServedModel:
    return serve_model(tiny_model("speech"), task="automatic-speech-recognition", runtime="transformers")


def test_speech_is_recognised_as_the_pipeline_does(
    server: ServedModel, tiny_model: TinyModel, tmp_path: Path
) -> None:
    from transformers import pipeline

    expected = pipeline("automatic-speech-recognition", model=str(tiny_model("speech")))(
        {"raw": tone(), "sampling_rate": 16_000}
    )
    content = encode_wav(tone(), 16_000)
    client = InferenceClient(server.url, token="hf_x")
    assert client.automatic_speech_recognition(content).text == expected["text"]
    path = tmp_path / "tone.wav"
    path.write_bytes(content)
    assert client.automatic_speech_recognition(path).text == expected["text"]
    chunked = client.automatic_speech_recognition(content, extra_body={"return_timestamps": "char"})
    assert chunked.text == expected["text"]
    assert chunked.chunks is not None


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"return_timestamps": "minute"}, "`return_timestamps`"),
        ({"generate_kwargs": {"num_beams": 2}}, "does not generate"),
        ({"generate_kwargs": {"logits_processor": "x"}}, "'logits_processor'"),
        ({"sampling_rate": 8000}, "'sampling_rate'"),
    ],
)
def test_wrong_parameters_are_refused_by_name(
    server: ServedModel, parameters: dict[str, object], says: str
) -> None:
    import base64

    body = {"inputs": base64.b64encode(encode_wav(tone(), 16_000)).decode(), "parameters": parameters}
    answer = server.post(body)
    assert answer.status_code == 422
    assert says in answer.json()["error"]
