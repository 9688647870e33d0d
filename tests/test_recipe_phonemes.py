"""Generated syllables are what they are said to be, and the recipe that tells them apart."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

from tfcourse import plots
from tfcourse.data import mel, phonemes, speech
from tfcourse.sequence import build_tdnn


@pytest.fixture(scope="module")
def clean():
    """Syllables whose noise is 100 dB below the voice."""
    return phonemes.make_syllables(240, 0, num_speakers=30, decibels=(100, 100))


# Source, filters and bands


def test_resonators_against_a_filter_of_scipy():
    rng = np.random.default_rng(0)
    waves = rng.standard_normal((2, 600))
    frequencies = np.array([[500, 1500], [700, 2500]], float)[..., None]
    found = speech.resonate(waves, frequencies, (60.0, 100.0))
    for row, wave in enumerate(waves):
        expected = wave
        for frequency, width in zip(frequencies[row, :, 0], (60, 100), strict=True):
            # The poles of a resonance, written as such.
            pole = np.exp((-np.pi * width + 2j * np.pi * frequency) / speech.RATE)
            down = np.poly([pole, pole.conj()]).real
            expected = lfilter([down.sum()], down, expected)
        np.testing.assert_allclose(found[row], expected, atol=1e-3)


def test_a_resonator_that_moves_is_heard_where_it_is():
    track = np.repeat([800.0, 2000.0], 5)[None, None]
    noise = np.random.default_rng(0).standard_normal((1, 12_000))
    halves = speech.resonate(noise, track, (50.0,)).reshape(2, 6000)
    peaks = np.abs(np.fft.rfft(halves)).argmax(axis=1) * speech.RATE / 6000
    np.testing.assert_allclose(peaks, [800, 2000], atol=80)


def test_a_buzz_falls_by_six_decibels_an_octave():
    wave = speech.buzz(np.full((1, speech.RATE), 100.0))[0]
    assert np.mean(wave**2) == pytest.approx(1, rel=1e-5)
    harmonics = 20 * np.log10(np.abs(np.fft.rfft(wave))[100:2000:100])
    # Hz are lines here; between the harmonics there is nothing.
    assert np.abs(np.fft.rfft(wave))[150:2000:100].max() < np.abs(np.fft.rfft(wave))[1900] / 2
    assert harmonics[3] - harmonics[7] == pytest.approx(6, abs=0.5)
    assert harmonics[7] - harmonics[15] == pytest.approx(6, abs=1.0)


def test_bands_are_equal_on_the_mel_scale():
    weights = mel.band_weights()
    # Every line but the first and the last is shared out wholly.
    np.testing.assert_allclose(weights[:, 1:-1].sum(axis=0), 1)
    time = np.arange(mel.WINDOW + mel.HOP) / speech.RATE
    tones = np.arange(100, 5900, 50)
    frames = mel.mel_bands(np.sin(2 * np.pi * tones[:, None] * time).astype("float32"))
    loudest = frames[:, 0].argmax(axis=1)
    expected = 1127 * np.log1p(tones / 700) / (1127 * np.log1p(6000 / 700) / 16)
    assert np.abs(loudest + 0.5 - expected).max() < 1
    assert (loudest == expected.astype(int)).mean() > 0.85


def test_frames_are_decibels():
    wave = np.random.default_rng(0).standard_normal((1, 4000)).astype("float32")
    gain = mel.mel_bands(10 * wave) - mel.mel_bands(wave)
    np.testing.assert_allclose(gain, 20, atol=1e-3)
    assert gain.shape == (1, 31, 16)


# Syllables


def test_formants_are_where_they_should_be(clean):
    """Linear prediction finds the first three in the vowel of men, whose harmonics lie close."""
    rows = np.flatnonzero(clean.speakers[:, 0] < 120)
    assert len(rows) > 20
    errors = []
    for row in rows:
        wave = np.diff(clean.waves[row, -1200:]) * np.hanning(1199)
        correlation = np.correlate(wave, wave, "full")[1198:1211]
        predictor = solve_toeplitz(correlation[:12], correlation[1:13])
        poles = np.roots([1, *-predictor])
        # Resonances, not what tilts the spectrum: poles near the circle.
        found = np.angle(poles[(poles.imag > 0) & (np.abs(poles) > 0.9)]) * speech.RATE / 2 / np.pi
        errors.append([np.abs(found / f - 1).min() for f in clean.formants[row, :3, -50]])
    assert (np.median(errors, axis=0) < [0.10, 0.05, 0.05]).all(), np.median(errors, axis=0)


def test_the_second_formant_comes_from_halfway_to_its_locus(clean):
    men = clean.formants / clean.speakers[:, 1, None, None]
    start, end = men[:, 1, 0], men[:, 1, -1]
    for label, locus in ((0, 720), (1, 1800)):
        rows = clean.labels == label
        slope, at_zero = np.polyfit(end[rows], start[rows], 1)
        assert slope == pytest.approx(0.5, abs=0.03)
        assert at_zero / (1 - slope) == pytest.approx(locus, rel=0.1)
    front = (clean.labels == 2) & (clean.vowels < 3)
    assert (start[front] > 2 * end[front] - 3300).all()
    assert (start[front] > end[front]).mean() > 0.95
    # The voice begins with the start, and after 60 ms all is there.
    begin = (clean.onsets * 1000).astype(int)
    rows = np.arange(len(begin))
    np.testing.assert_allclose(men[rows, 1, begin - 1], start, rtol=1e-6)
    np.testing.assert_allclose(men[rows, 1, begin + 61], end, rtol=1e-6)


def test_pitch_by_autocorrelation(clean):
    lags = np.arange(40, 150)
    waves = clean.waves[:, -1500:]
    sums = np.stack([(waves[:, lag:] * waves[:, :-lag]).mean(axis=1) for lag in lags], axis=1)
    # The first lag that is nearly the best: two periods fit as well as one.
    first = (sums > 0.85 * sums.max(axis=1, keepdims=True)).argmax(axis=1)
    best = [at + sums[row, at : at + 12].argmax() for row, at in enumerate(first)]
    errors = speech.RATE / lags[best] / clean.speakers[:, 0] - 1
    # A syllable is within 5 % of its speaker's pitch; the rest is rounding to a sample.
    assert (np.abs(errors) < 0.08).mean() > 0.95
    assert np.abs(np.median(errors)) < 0.02
    assert clean.speakers[:, 0].max() > 1.7 * clean.speakers[:, 0].min()


def test_noise_is_as_loud_as_is_said():
    clean, noisy = (
        phonemes.make_syllables(30, 1, decibels=limits) for limits in ((300, 300), (5, 25))
    )
    noise = noisy.waves - clean.waves
    voice = clean.waves[:, 2200:]  # behind the burst
    level = 10 * np.log10((voice**2).sum(axis=1) / (noise**2).sum(axis=1))
    np.testing.assert_allclose(level, noisy.decibels, atol=0.5)
    assert np.ptp(noisy.decibels) > 15


def test_silence_burst_voice(clean):
    before = clean.waves[:, : int(0.137 * speech.RATE)]
    assert np.square(before).mean() < 1e-8
    starts = ((clean.onsets - 0.005) * speech.RATE).astype(int)
    bursts = clean.waves[np.arange(len(starts))[:, None], starts[:, None] + np.arange(60)]
    energy = np.abs(np.fft.rfft(bursts * np.hanning(60))) ** 2
    centres = energy @ np.fft.rfftfreq(60, 1 / speech.RATE) / energy.sum(axis=1)
    middle = [np.median(centres[clean.labels == label]) for label in range(3)]
    assert middle[0] < middle[2] < middle[1]  # b is dull, d is sharp, g depends on the vowel


def test_speakers_of_other_seeds_are_others(clean):
    again = phonemes.make_syllables(240, 0, num_speakers=30, decibels=(100, 100))
    np.testing.assert_array_equal(again.waves, clean.waves)
    other = phonemes.make_syllables(240, [0, 1], num_speakers=30)
    assert len(np.unique(clean.speakers, axis=0)) == 30
    assert not set(clean.speakers[:, 0]) & set(other.speakers[:, 0])
    assert (np.bincount(clean.labels) == 80).all()


# Clips


def test_a_shifted_clip_is_that_of_a_delayed_wave():
    waves = phonemes.make_syllables(6, 2).waves
    frames = mel.mel_bands(waves)
    for shift in (-8, 0, 3):
        delayed = np.roll(waves, shift * speech.RATE // 100, axis=1)
        expected = mel.cut_clips(mel.mel_bands(delayed))
        np.testing.assert_allclose(mel.cut_clips(frames, shift), expected, atol=1e-4)
    each = mel.cut_clips(frames, np.array([0, 1, -1, 8, -8, 2]))
    np.testing.assert_array_equal(each[3], mel.cut_clips(frames, 8)[3])
    np.testing.assert_allclose(each.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(each).max(axis=(1, 2)), 1)


def test_the_voice_begins_in_the_middle_of_a_clip():
    frames = mel.mel_bands(phonemes.make_syllables(30, 4, decibels=(20, 20)).waves)
    for shift in (-5, 0, 5):
        hum = mel.cut_clips(frames, shift)[..., 1:3].mean(axis=2)  # around 200 Hz
        half = (hum.min(axis=1) + hum.max(axis=1)) / 2
        begin = (hum > half[:, None]).argmax(axis=1)
        # It is whole after 15 ms, and frames are 10 ms apart.
        assert np.isin(begin - 7 - shift, (0, 1)).all()


def test_units_of_a_tdnn_shift_with_the_clip_up_to_its_edges():
    frames = mel.mel_bands(phonemes.make_syllables(6, 3).waves)
    units = build_tdnn(num_classes=None)
    first, later = (np.asarray(units(frames[:, at : at + 15])) for at in (8, 5))
    np.testing.assert_allclose(later[:, 3:], first[:, :-3], atol=1e-5)
    assert np.abs(later - first).max() > 0.05


# What is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: phonemes.make_syllables(2, 0), "count must be at least 3 .*, got 2 and 40"),
        (lambda: phonemes.make_syllables(3, 0, num_speakers=0), "num_speakers .* got 3 and 0"),
        (
            lambda: speech.resonate(np.zeros((1, 10)), np.full((1, 1, 3), 9.0), (1.0,)),
            "steps must divide the 10 samples, got 3",
        ),
        (
            lambda: speech.resonate(np.zeros((1, 10)), np.full((1, 1, 1), 6000.0), (1.0,)),
            "frequencies must be below 6000 Hz, got 6000",
        ),
        (
            lambda: speech.resonate(np.zeros((1, 10)), np.full((1, 2, 1), 9.0), (1.0,)),
            "bandwidths must be one for each of 2, got 1",
        ),
        (lambda: mel.mel_bands(np.zeros((1, 300))), "at least 316 samples, got 300"),
        (lambda: mel.cut_clips(np.ones((2, 31, 16)), 9), "shift must be from -8 to 8, got 9"),
        (
            lambda: mel.cut_clips(np.ones((2, 31, 16)), np.array([3, -9])),
            "shift must be from -8 to 8, got -9",
        ),
        (lambda: mel.cut_clips(np.ones((2, 30, 16))), "odd number of at least 15, got 30"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Pictures and the recipe


def test_the_shift_curve_shows_a_loss(tmp_path):
    curves = {"falls": np.array([[0.9, 0.1]]), "stays": np.array([[0.9, 0.9]])}
    look = {"title": "two", "trained": (-5, 5), "chance": 0.5}
    plots.shift_curves([0, 10], curves, tmp_path / "shifts.png", **look)
    with Image.open(tmp_path / "shifts.png") as file:
        pixels = np.asarray(file.convert("RGB")).astype(int)
    for color, is_low in ((plots.COLORS[0], True), (plots.COLORS[1], False)):
        rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        right = np.abs(pixels - rgb).max(axis=2) < 8
        right[:, : pixels.shape[1] * 3 // 4] = False
        assert (np.nonzero(right)[0].mean() > pixels.shape[0] * 0.6) == is_low


def test_recognise_phonemes(recipe, tmp_path):
    status, _, output = recipe("recognise_phonemes", "--smoke")
    assert status == 0
    folder = tmp_path / "runs/recognise_phonemes"
    report = json.loads((folder / "report.json").read_text())
    assert output.out.splitlines()[-1] == report["line"]
    assert "generated" in report["line"]
    sizes = report["parameters"]
    assert sizes["TDNN"] == 518
    assert sizes["MLP of equal size"] == pytest.approx(518, rel=0.02)
    assert sizes["MLP of 12 times the size"] == pytest.approx(12 * 518, rel=0.03)
    for name in ("spectra.png", "units.png", "shifts.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200


@pytest.mark.slow
def test_what_is_trained_is_not_trained_again(recipe, tmp_path):
    assert recipe("recognise_phonemes", "--smoke")[0] == 0
    folder = tmp_path / "runs/recognise_phonemes"
    report = json.loads((folder / "report.json").read_text())
    # As after an interruption in the third training.
    (folder / "report.json").unlink()
    (folder / "trained/MLP_of_12_times_the_size_0.json").unlink()
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "trained").glob("*.json")}
    status, _, output = recipe("recognise_phonemes", "--smoke")
    assert status == 0
    assert output.out.splitlines()[-1] == report["line"]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learned-shift", "9"], "argument --learned-shift: invalid choice: 9"),
        (["--seed", "4294967295"], "--seed must leave room for --seeds below 2**32, got 429496"),
        (["--seeds", "0"], "argument --seeds: must be a whole number of at least 1"),
        (["--learning-rate", "-1"], "argument --learning-rate: must be a number above 0"),
    ],
)
def test_bad_flags_are_one_line(flags, message, recipe, tmp_path):
    status, _, output = recipe("recognise_phonemes", *flags)
    assert status == 2
    assert message in output.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_full_recipe_keeps_its_promise(recipe):
    status, _, output = recipe("recognise_phonemes")
    assert status == 0, output.err
    assert "(expected " in output.out.splitlines()[-1]
