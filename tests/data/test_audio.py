import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from precis.data.audio import read_wav, write_wav
from precis.data.shapes import chord
from precis.errors import InputError

SOUND = np.stack([chord(0.1).samples[0], -0.5 * chord(0.1).samples[0]])


@pytest.mark.parametrize("bits", [8, 16, 24, 32, 0])
def test_round_trip_to_half_a_step(tmp_path, bits):
    path = write_wav(tmp_path / "a.wav", SOUND, 8000, bits=bits)
    found = read_wav(path)
    assert found.rate == 8000 and found.samples.dtype == np.float32 and found.samples.shape == SOUND.shape
    step = {0: 0.0}.get(bits, 2.0 ** -(bits - 1 if bits else 1))
    assert np.abs(found.samples - SOUND).max() <= step / 2 + 6e-8
    mono = read_wav(write_wav(tmp_path / "b.wav", SOUND[0], 44_100, bits=bits))
    assert mono.samples.shape == (1, SOUND.shape[1]) and mono.rate == 44_100


@pytest.mark.parametrize(("width", "bits"), [(1, 8), (2, 16), (3, 24), (4, 32)])
def test_full_scale_against_the_standard_library(tmp_path, width, bits):
    """Least and greatest sample of every width, written by `wave`: −1 and 1 − 1 step."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if width == 1:
        body = bytes([0, 255, 128])
    else:
        body = b"".join(v.to_bytes(width, "little", signed=True) for v in (low, high, 0))
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, width, 8000, 3, "NONE", ""))
        file.writeframes(body)
    np.testing.assert_allclose(read_wav(tmp_path / "a.wav").samples[0], [-1, high / 2 ** (bits - 1), 0], atol=1e-7)
    write_wav(tmp_path / "b.wav", np.array([-1.0, 1.0, 0.0]), 8000, bits=bits)  # 1.0 is clipped to the last step
    with wave.open(str(tmp_path / "b.wav"), "rb") as file:
        assert file.getsampwidth() == width and file.readframes(3) == body


def test_float_keeps_its_range(tmp_path):
    wavfile.write(tmp_path / "a.wav", 8000, np.array([0.5, -3.0]))
    assert read_wav(tmp_path / "a.wav").samples.tolist() == [[0.5, -3.0]]
    wavfile.write(tmp_path / "a.wav", 8000, np.array([0.5, np.nan], np.float32))
    with pytest.raises(InputError, match="sample 1 of channel 0 is nan"):
        read_wav(tmp_path / "a.wav")


def test_bad_files(tmp_path):
    path = tmp_path / "a.wav"
    for body, words in ((b"", "empty"), (b"ID3 this is an mp3", "no WAV file"), (b"RIFF\4\0\0\0WAVE", "damaged")):
        path.write_bytes(body)
        with pytest.raises(InputError, match=words):
            read_wav(path)
    write_wav(path, SOUND, 8000)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    with pytest.raises(InputError, match=r"a\.wav: the WAV file"):
        read_wav(path)
    wavfile.write(path, 8000, np.zeros(0, np.int16))
    with pytest.raises(InputError, match="holds 0 samples"):
        read_wav(path)
    with pytest.raises(InputError, match="no such file"):
        read_wav(tmp_path / "none.wav")
    with pytest.raises(InputError, match="--bits"):
        write_wav(path, SOUND, 8000, bits=12)
    with pytest.raises(ValueError, match="finite"):
        write_wav(path, np.array([np.nan]), 8000)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_files_raise_input_error_only(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    body = bytearray(write_wav(folder / "fuzz.wav", SOUND[:, :30], 8000).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, 60))] = data.draw(st.integers(0, 255))
    (folder / "fuzz.wav").write_bytes(bytes(body[: data.draw(st.integers(1, len(body)))]))
    try:
        assert read_wav(folder / "fuzz.wav").samples.ndim == 2
    except InputError as error:
        assert "fuzz.wav" in str(error)
