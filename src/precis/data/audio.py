"""WAV files to and from float samples, through scipy.io.wavfile."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from precis.data.files import existing, whole
from precis.errors import InputError

WANTED = "a WAV file (8, 16, 24 or 32 bits, or float)"
MAX_SAMPLES = 1 << 29


class Audio(NamedTuple):
    """`samples` float32 [channels, n] in −1 … 1 (float files keep their own range); `rate` in samples a second."""

    samples: Float32[np.ndarray, "channels n"]
    rate: int


def read_wav(path: str | Path) -> Audio:
    """Read a whole WAV file; InputError if it is something else, cut short, silent of length, or not finite."""
    from scipy.io import wavfile

    path = existing(path, WANTED)
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] not in (b"RIFF", b"RIFX", b"RF64") or head[8:12] != b"WAVE":
        raise InputError(f"this is no WAV file; {WANTED} is wanted", file=path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            rate, raw = wavfile.read(path)
        except Exception as error:  # scipy lets struct and NumPy errors out on broken files
            raise InputError(f"the WAV file is damaged or of a kind that is not read ({error})", file=path) from error
    if any("EOF" in str(w.message) for w in caught):
        raise InputError("the WAV file ends before its data do; it was cut short", file=path)
    raw = raw[:, None] if raw.ndim == 1 else raw
    if raw.shape[0] == 0 or rate <= 0:
        raise InputError(f"the WAV file holds {raw.shape[0]} samples at {rate} a second", file=path)
    if raw.size > MAX_SAMPLES:
        raise InputError(f"the WAV file holds {raw.size:,} samples, more than the limit of {MAX_SAMPLES:,}", file=path)
    samples = np.ascontiguousarray(_scaled(raw).T, dtype=np.float32)
    bad = np.argwhere(~np.isfinite(samples))
    if len(bad):
        channel, index = bad[0]
        words = f"sample {index} of channel {channel} is {samples[channel, index]}"
        raise InputError(f"{words}; all must be finite", file=path)
    return Audio(samples, int(rate))


def write_wav(path: str | Path, samples: np.ndarray, rate: int, *, bits: int = 16) -> Path:
    """Write [n] or [channels, n] floats in −1 … 1 (clipped) with 8, 16, 24 or 32 bits; `bits=0` writes float32."""
    from scipy.io import wavfile

    path, samples = Path(path), np.atleast_2d(np.asarray(samples, np.float64))
    if samples.ndim != 2 or samples.size == 0 or not np.isfinite(samples).all():
        raise ValueError(f"samples are finite [channels, n], got {list(samples.shape)}")
    if bits not in (0, 8, 16, 24, 32):
        raise InputError(f"--bits must be 8, 16, 24, 32, or 0 for float, got {bits}")
    with whole(path) as beside:
        if bits == 24:
            beside.write_bytes(_wav24(samples, rate))
        elif bits == 0:
            wavfile.write(beside, rate, samples.T.astype(np.float32))
        else:
            top = 2.0 ** (bits - 1)
            whole_numbers = np.clip(np.rint(samples.T * top), -top, top - 1)
            kind = {8: np.uint8, 16: np.int16, 32: np.int32}[bits]
            wavfile.write(beside, rate, (whole_numbers + (128 if bits == 8 else 0)).astype(kind))
    return path


def _scaled(raw: np.ndarray) -> np.ndarray:
    """Full scale is 2^(bits−1); scipy shifts 24 bits to the top of 32, and 8-bit WAV is unsigned around 128."""
    if raw.dtype.kind == "f":
        return raw
    if raw.dtype == np.uint8:
        return (raw.astype(np.float64) - 128) / 128
    return raw / 2.0 ** (8 * raw.dtype.itemsize - 1)


def _wav24(samples: np.ndarray, rate: int) -> bytes:
    top = 2.0**23
    numbers = np.clip(np.rint(samples.T * top), -top, top - 1).astype("<i4")
    body = numbers[..., None].view(np.uint8)[..., :3].tobytes()
    channels = samples.shape[0]

    def field(value: int, size: int) -> bytes:
        return value.to_bytes(size, "little")

    form = field(1, 2) + field(channels, 2) + field(rate, 4) + field(rate * channels * 3, 4) + field(channels * 3, 2)
    chunks = b"fmt " + field(16, 4) + form + field(24, 2) + b"data" + field(len(body), 4) + body + bytes(len(body) % 2)
    return b"RIFF" + field(4 + len(chunks), 4) + b"WAVE" + chunks
