"""Generated syllables: b, d or g before a vowel, of speakers that do not exist.

Nothing here was recorded. A formant moves to its place in the vowel from halfway between there and
a locus, which tells the consonants apart (Delattre, Liberman & Cooper, 1955,
https://doi.org/10.1121/1.1908024); a burst of noise goes before.
"""

from dataclasses import dataclass

import numpy as np

from tfcourse.data.speech import RATE, buzz, resonate, to_power

PHONEMES = ("b", "d", "g")
# Men's mean formants in Hz (Peterson & Barney, 1952, https://doi.org/10.1121/1.1906875).
VOWELS = {
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
UPPER = (3500, 4500)  # the fourth and fifth formant, always
BANDWIDTHS = (60.0, 90.0, 150.0, 200.0, 250.0)
# Of the first three formants. Delattre et al. found no second locus of g before o and u: 1200 Hz is
# ours, as are the loci of the third formant and the bursts.
LOCI = {"b": (240, 720, 2200), "d": (240, 1800, 2800), "g": (240, 3000, 2300)}
BACK = ("o", "u")
BACK_LOCUS = 1200
APART = 300  # by which the third formant begins above the second, at least
BURSTS = {"b": 800, "d": 3600}  # that of g lies where its second formant begins
BURST_WIDTH = 600.0
SAMPLES, STEPS = 3960, 330
ONSET = 0.1632  # seconds: the middle of the 16th of 31 frames of `mel_bands`


@dataclass(frozen=True)
class Syllables:
    """Generated syllables.

    Attributes:
        waves: `(rows, 3960)`, 330 ms at 12 kHz.
        labels: Indices into `PHONEMES`, `(rows,)`.
        vowels: Indices into `VOWELS`, `(rows,)`.
        speakers: Pitch in Hz and how much higher than a man's the formants are, of each row's
            speaker, `(rows, 2)`.
        onsets: When the voice begins, in seconds, `(rows,)`.
        formants: In Hz, `(rows, 5, 330)`, one each millisecond.
        decibels: How far the voice lies above the noise, `(rows,)`.
    """

    waves: np.ndarray
    labels: np.ndarray
    vowels: np.ndarray
    speakers: np.ndarray
    onsets: np.ndarray
    formants: np.ndarray
    decibels: np.ndarray


def make_syllables(
    count: int,
    seed: int | list[int],
    *,
    num_speakers: int = 40,
    decibels: tuple[float, float] = (15.0, 35.0),
) -> Syllables:
    """Generate syllables: as many of each consonant, vowels and speakers at random.

    Args:
        count: How many.
        seed: Of all that is random; another one has other speakers.
        num_speakers: How many speakers there are.
        decibels: Between which the voice lies above the noise.

    Raises:
        ValueError: If there are less than 3 syllables or no speakers.
    """
    if count < len(PHONEMES) or num_speakers < 1:
        rule = f"count must be at least {len(PHONEMES)} and num_speakers at least 1"
        raise ValueError(f"{rule}, got {count} and {num_speakers}")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(PHONEMES))
    vowels = rng.integers(len(VOWELS), size=count)
    speakers = _draw_speakers(rng, num_speakers)[rng.integers(num_speakers, size=count)]
    onsets = ONSET + rng.uniform(-0.005, 0.005, count)
    formants = _formants(rng, labels, vowels, speakers[:, 1], onsets)
    waves = _voice(rng, speakers[:, 0], formants, onsets) + _burst(rng, labels, formants, onsets)
    ratios = rng.uniform(*decibels, count)
    waves += to_power(rng.standard_normal(waves.shape, "float32"), -ratios)
    return Syllables(waves, labels, vowels, speakers, onsets, formants, ratios)


def _draw_speakers(rng: np.random.Generator, count: int) -> np.ndarray:
    # Who is smaller has a higher voice and, in a shorter mouth, higher formants.
    smaller = rng.uniform(0, 1, count)
    pitch = 100 * 2 ** (1.1 * smaller + rng.normal(0, 0.1, count))
    return np.stack([pitch, 0.95 + 0.2 * smaller + rng.normal(0, 0.02, count)], axis=1)


def _formants(rng, labels, vowels, scale, onsets) -> np.ndarray:
    ends = np.array(list(VOWELS.values()), float)[vowels]
    loci = np.array([LOCI[name] for name in PHONEMES], float)[labels]
    is_g = labels == PHONEMES.index("g")
    is_back = np.isin(vowels, [list(VOWELS).index(vowel) for vowel in BACK])
    loci[is_g & is_back, 1] = BACK_LOCUS
    ends *= rng.normal(1, 0.04, ends.shape)
    starts = (ends + loci * rng.normal(1, 0.04, loci.shape)) / 2
    starts[:, 2] = np.maximum(starts[:, 2], starts[:, 1] + APART)
    # A formant is there in 30 to 60 ms; before the voice begins it waits where it will start.
    durations = rng.uniform(0.03, 0.06, len(labels))
    times = (np.arange(STEPS) + 0.5) / 1000
    done = np.clip((times - onsets[:, None]) / durations[:, None], 0, 1)[:, None]
    lower = starts[..., None] + (ends - starts)[..., None] * done
    upper = np.broadcast_to(np.array(UPPER, float)[:, None], (len(labels), 2, STEPS))
    return np.concatenate([lower, upper], axis=1) * scale[:, None, None]


def _voice(rng, pitch, formants, onsets) -> np.ndarray:
    seconds = np.arange(SAMPLES, dtype="float32") / RATE
    # The pitch moves in a straight line within 5 % of the speaker's.
    begin, end = (pitch * rng.uniform(0.95, 1.05, (2, len(pitch)))).astype("float32")
    tune = begin[:, None] + (end - begin)[:, None] * (seconds / seconds[-1])
    attack = np.clip((seconds - onsets[:, None].astype("float32")) / 0.015, 0, 1)
    return to_power(resonate(buzz(tune) * attack, formants, BANDWIDTHS), 0.0)


def _burst(rng, labels, formants, onsets) -> np.ndarray:
    count = len(labels)
    at = np.array([BURSTS.get(name, np.nan) for name in PHONEMES])[labels]
    at *= formants[:, 4, 0] / UPPER[1]
    at = np.where(np.isnan(at), formants[:, 1, 0], at) * rng.normal(1, 0.1, count)
    noise = rng.standard_normal((count, SAMPLES), "float32")
    at = np.minimum(at, 0.45 * RATE)[:, None, None]
    noise = to_power(resonate(noise, at, (BURST_WIDTH,)), rng.uniform(-25, -5, count))
    # It comes 5 to 20 ms before the voice, and dies away in 5 ms.
    starts = onsets - rng.uniform(0.005, 0.02, count)
    since = np.arange(SAMPLES, dtype="float32") / RATE - starts[:, None].astype("float32")
    return noise * np.exp(-np.maximum(since, 0) / 0.005) * (since >= 0)
