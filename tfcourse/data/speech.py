"""Speech from a source and filters (Klatt, 1980, https://doi.org/10.1121/1.383940).

A buzz, or noise, passes through a resonator for each formant, one after the other. One at f Hz, w
Hz wide, has at the rate of R samples in a second

    y_t = a x_t + b y_(t-1) + c y_(t-2)
    c = -exp(-2 pi w / R)    b = 2 exp(-pi w / R) cos(2 pi f / R)    a = 1 - b - c
"""

import numpy as np

RATE = 12_000  # samples in a second


def buzz(pitch: np.ndarray) -> np.ndarray:
    """Return what the vocal cords give off: pulses whose spectrum falls by 6 dB an octave.

    Args:
        pitch: Pulses in a second at each sample, `(rows, samples)`.

    Returns:
        Waves of the power 1, `(rows, samples)`.
    """
    turns = np.floor(np.cumsum(pitch / RATE, axis=1, dtype=np.float64))
    pulses = np.diff(turns, axis=1, prepend=0.0)
    # A resonator at 0 Hz whose slope is 12 dB; the lips give 6 dB back.
    smooth = resonate(pulses, np.zeros((len(pitch), 1, 1)), (100.0,))
    return to_power(np.diff(smooth, axis=1, prepend=0.0), 0.0)


def resonate(
    waves: np.ndarray, frequencies: np.ndarray, bandwidths: tuple[float, ...]
) -> np.ndarray:
    """Send waves through resonators, one after the other.

    Args:
        waves: `(rows, samples)`.
        frequencies: In Hz, `(rows, resonators, steps)`; each step holds for equally many samples.
        bandwidths: In Hz, one for each resonator.

    Returns:
        The waves, `(rows, samples)`; at 0 Hz they are as loud as before.

    Raises:
        ValueError: If a frequency is not below half the rate, a resonator has no bandwidth, or the
            steps don't divide the samples.
    """
    samples, (_, count, steps) = waves.shape[1], frequencies.shape
    if len(bandwidths) != count:
        raise ValueError(f"bandwidths must be one for each of {count}, got {len(bandwidths)}")
    if samples % steps:
        raise ValueError(f"steps must divide the {samples} samples, got {steps}")
    if not (np.abs(frequencies) < RATE / 2).all():
        raise ValueError(f"frequencies must be below {RATE // 2} Hz, got {frequencies.max():.0f}")
    y = waves.T.astype("float32")  # one sample of all rows lies together
    for track, bandwidth in zip(np.moveaxis(frequencies, 0, 2), bandwidths, strict=True):
        c = np.float32(-np.exp(-2 * np.pi * bandwidth / RATE))
        b = (2 * np.sqrt(-c) * np.cos(2 * np.pi * track / RATE)).astype("float32")
        a = 1 - b - c
        before = last = np.zeros_like(y[0])
        for t in range(samples):
            step = t * steps // samples
            y[t] = a[step] * y[t] + b[step] * last + c * before
            before, last = last, y[t]
    return y.T


def to_power(waves: np.ndarray, decibels: np.ndarray | float) -> np.ndarray:
    """Make each row as loud as is said: 0 decibels is a mean square of 1."""
    power = np.mean(np.square(waves, dtype=np.float64), axis=1, keepdims=True)
    wanted = 10 ** (np.reshape(decibels, (-1, 1)) / 10)
    return (waves * np.sqrt(wanted / np.maximum(power, 1e-20))).astype("float32")
