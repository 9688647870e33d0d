"""Frames of 16 mel coefficients (Waibel et al., 1989, https://doi.org/10.1109/29.21701).

A frame is the energy in each band, in decibels, every 10 ms; a clip is 15 of them.
"""

from itertools import pairwise

import numpy as np

from tfcourse.data.speech import RATE

WINDOW, HOP = 256, 60  # samples: two spectra, 5 ms apart, make a frame
NUM_BANDS = 16
NUM_FRAMES = 15
AT_ONCE = 500  # waves whose spectra are in memory together


def mel_bands(waves: np.ndarray) -> np.ndarray:
    """Return how much energy is in each of 16 bands, every 10 ms.

    The bands are equally wide on the mel scale, 2595 log10(1 + f / 700), and neighbours share half
    of the line between them.

    Args:
        waves: `(rows, samples)`.

    Returns:
        Frames `(rows, frames, 16)` in decibels.

    Raises:
        ValueError: If a wave is too short for a frame.
    """
    if waves.shape[1] < WINDOW + HOP:
        raise ValueError(f"waves must have at least {WINDOW + HOP} samples, got {waves.shape[1]}")
    parts = range(0, len(waves), AT_ONCE)
    return np.concatenate([_frames(waves[first : first + AT_ONCE]) for first in parts])


def _frames(waves: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(waves, WINDOW, axis=1)[:, ::HOP]
    spectra = np.fft.rfft(windows * np.hamming(WINDOW).astype("float32"))
    energies = (spectra.real**2 + spectra.imag**2) @ band_weights().T
    count = energies.shape[1] // 2
    pairs = energies[:, : 2 * count].reshape(len(waves), count, 2, NUM_BANDS)
    return (10 * np.log10(pairs.mean(axis=2) + 1e-10)).astype("float32")


def band_weights() -> np.ndarray:
    """Return the share that each band has of each line of the spectrum, `(16, lines)`."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, NUM_BANDS + 1) / 2595) - 1)
    edges = np.round(edges * WINDOW / RATE).astype(int)
    weights = np.zeros((NUM_BANDS, WINDOW // 2 + 1), "float32")
    for band, (low, high) in enumerate(pairwise(edges)):
        weights[band, low : high + 1] = 1
        weights[band, [low, high]] = 0.5
    return weights


def cut_clips(frames: np.ndarray, shift: int | np.ndarray = 0) -> np.ndarray:
    """Cut 15 frames out of more, and bring them to the range of -1 to 1, as in the paper.

    Args:
        frames: An odd number of them, `(rows, frames, bands)`.
        shift: How many frames later than in the clip's middle that comes which is in the middle of
            `frames`; one number for all, or one for each row.

    Returns:
        Clips `(rows, 15, bands)`: each coefficient has the mean 0, and the largest of all is 1.

    Raises:
        ValueError: If the number of frames is even, or a shift leads out of them.
    """
    count = frames.shape[1]
    if count < NUM_FRAMES or count % 2 == 0:
        raise ValueError(f"frames must be an odd number of at least {NUM_FRAMES}, got {count}")
    beyond = (count - NUM_FRAMES) // 2
    shift = np.broadcast_to(shift, len(frames))
    if np.abs(shift).max() > beyond:
        far = shift[np.abs(shift).argmax()]
        raise ValueError(f"shift must be from -{beyond} to {beyond}, got {far}")
    times = beyond - shift[:, None] + np.arange(NUM_FRAMES)
    clips = np.take_along_axis(frames, times[..., None], axis=1)
    clips = clips - clips.mean(axis=1, keepdims=True)
    return clips / np.maximum(np.abs(clips).max(axis=(1, 2), keepdims=True), 1e-10)
