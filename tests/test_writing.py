"""A text by its characters: counts against a dictionary's, samples against probabilities."""

import collections
import math

import keras
import numpy as np
import pytest
from PIL import Image

from tfcourse import plots
from tfcourse.data.running_text import excerpts, long_rows, split_text
from tfcourse.sequence import build_language_model
from tfcourse.sequence.ngrams import fit_ngrams, longest, mixed_bits
from tfcourse.sequence.sampling_text import sample_tokens


def refusal(call, *arguments, **named):
    with pytest.raises(ValueError) as error:
        call(*arguments, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


def kneser_ney(text, size, order):
    """Return p(token, history) by the formula, with dictionaries of tuples."""
    counts = [collections.Counter() for _ in range(order + 1)]
    counts[order].update(zip(*(text[i:] for i in range(order)), strict=False))
    for n in range(order - 1, 0, -1):
        counts[n].update(gram[1:] for gram in counts[n + 1])
    discounts = []
    for table in counts:
        once, twice = (sum(c == k for c in table.values()) for k in (1, 2))
        discounts.append(min(once / (once + 2 * twice), 0.95) if once else 0.5)

    def p(token, history):
        n = len(history) + 1
        lower = p(token, history[1:]) if history else 1 / (size - 1)
        after = {gram: c for gram, c in counts[n].items() if gram[:-1] == tuple(history)}
        if not after:
            return lower
        total, discount = sum(after.values()), discounts[n]
        own = after.get((*history, token), 0)
        share = (own - discount) / total if own else 0.0
        return share + discount * len(after) / total * lower

    return p


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ngrams_are_the_formula(order):
    random = np.random.default_rng(order)
    size = 7
    text = (random.integers(1, 5, 200) + (random.random(200) < 0.1)).tolist()
    model = fit_ngrams(np.array(text), size, order)
    p = kneser_ney(text, size, order)
    other = random.integers(1, size, 60)
    expected = [
        math.log(p(token, other[max(0, i - order + 1) : i].tolist()))
        for i, token in enumerate(other.tolist())
    ]
    np.testing.assert_allclose(model.log_probabilities(other), expected, rtol=1e-9)
    assert model.bits(other) == pytest.approx(-np.mean(expected) / math.log(2))


def test_the_probabilities_of_all_tokens_sum_to_one():
    random = np.random.default_rng(0)
    size, order = 9, 3
    model = fit_ngrams(random.integers(1, 6, 300), size, order)
    for history in ([1, 2], [5, 5], [8, 8], [2, 7]):
        rows = [model.log_probabilities(np.array([*history, w]))[-1] for w in range(1, size)]
        assert np.exp(rows).sum() == pytest.approx(1)


def test_more_text_before_a_character_helps_until_counts_are_few():
    text = np.array([1, 2, 1, 3] * 50)
    bits = [fit_ngrams(text, 5, n).bits(text) for n in (1, 2, 3)]
    assert bits[0] > 1.4 and 0.4 < bits[1] < 0.8 and bits[2] < 0.1


def test_the_bits_of_two_models_together():
    a, b = np.array([1.0, 4.0]), np.array([3.0, 2.0])
    expected = [-math.log2(0.25 / 2 + 0.75 / 8), -math.log2(0.25 / 16 + 0.75 / 4)]
    np.testing.assert_allclose(mixed_bits(a, b, 0.25), expected)


def test_wrong_ngrams_are_refused():
    assert refusal(fit_ngrams, [1, 2], 5, 3) == (
        "ids must be at least 3, as many as an n-gram, got 2"
    )
    assert refusal(fit_ngrams, [0, 2], 5, 1) == "ids must be from 1 to 4, got 0"
    assert refusal(fit_ngrams, [1, 5], 5, 1) == "ids must be from 1 to 4, got 5"
    assert (
        refusal(fit_ngrams, [1.0], 5, 1) == "ids must be whole numbers (tokens,), got float64 (1,)"
    )
    assert refusal(longest, 1) == "vocabulary_size must be a whole number of at least 2, got 1"
    assert longest(3000) == 5 and longest(2) == 62
    assert refusal(fit_ngrams, [1] * 9, 3000, 6) == "order must be at most 5 for 3000 ids, got 6"


def sharp_model(cell="gru", size=6, num_layers=1):
    """Build a small model whose answers are far from even."""
    keras.utils.set_random_seed(3)
    model = build_language_model(
        cell, size, embedding_dim=5, units=8, num_layers=num_layers, dropout=0.2
    )
    random = np.random.default_rng(0)
    model.set_weights([random.normal(size=w.shape) * 0.9 for w in model.get_weights()])
    return model


def probabilities(model, ids, temperature, never=(0, 1)):
    z = model(np.array([ids])).numpy()[0, -1].astype(float) / temperature
    z[list(never)] = -np.inf
    p = np.exp(z - z.max())
    return p / p.sum()


@pytest.mark.parametrize(
    ("cell", "num_layers"),
    [
        ("gru", 1),
        pytest.param("lstm", 2, marks=pytest.mark.slow),
        pytest.param("rnn", 1, marks=pytest.mark.slow),
        pytest.param("gru-2014", 1, marks=pytest.mark.slow),
    ],
)
def test_the_likeliest_token_is_that_of_the_whole_model(cell, num_layers):
    model = sharp_model(cell, num_layers=num_layers)
    start = [[2, 3, 5], [4, 1, 1]]
    found = sample_tokens(model, start, 8, temperature=0)
    logits = model(np.concatenate([start, found], axis=1)).numpy()[:, 2:-1]
    logits[..., :2] = -np.inf
    assert (logits.argmax(axis=-1) == found).all()
    assert len(np.unique(found)) > 1


def test_samples_are_as_frequent_as_their_probabilities():
    """The first two tokens of 4,000 samples, against the softmax of the model's logits."""
    model, rows = sharp_model(), 4000
    for temperature in (0.5, 1.0, 2.0):
        found = sample_tokens(model, np.full((rows, 1), 2), 2, temperature=temperature, seed=1)
        first = probabilities(model, [2], temperature)
        expected = {
            (a, b): first[a] * q
            for a in range(2, 6)
            for b, q in enumerate(probabilities(model, [2, a], temperature))
            if b > 1
        }
        seen = collections.Counter(map(tuple, found.tolist()))
        assert set(seen) <= set(expected)
        chi_square = sum((seen[k] - rows * p) ** 2 / (rows * p) for k, p in expected.items())
        assert chi_square < 44  # the 0.9999 quantile of chi-square with 15 degrees of freedom


def test_a_seed_is_a_sample_that_survives_saving(tmp_path):
    model = sharp_model()
    one = sample_tokens(model, [[2, 3]], 20, seed=1)
    assert (one == sample_tokens(model, [[2, 3]], 20, seed=1)).all()
    assert (one != sample_tokens(model, [[2, 3]], 20, seed=2)).any()
    # Seeds have 32 bits, and come as numbers of Python or of NumPy.
    assert (sample_tokens(model, [[2, 3]], 20, seed=np.int64(1)) == one).all()
    assert (sample_tokens(model, [[2, 3]], 20, seed=2**32 - 1) != one).any()
    # As many tokens in all: the same compiled loop, which begins to draw one token later.
    again = sample_tokens(model, [[2, 3, one[0, 0]]], 19, seed=1)
    assert (again == one[:, 1:]).all()
    assert model._tfcourse_sampler.experimental_get_tracing_count() == 1
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (sample_tokens(loaded, [[2, 3]], 20, seed=1) == one).all()


@pytest.mark.slow
def test_sampling_in_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = sharp_model("lstm")
    finally:
        keras.config.set_dtype_policy("float32")
    found = sample_tokens(model, [[2]], 12)
    assert found.shape == (1, 12) and found.min() > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": [[]]}, "start must be ids (rows, tokens), at least (1, 1), got (1, 0)"),
        ({"start": [[0]]}, "start must have ids from 1 to 5, got 0"),
        ({"start": [[6]]}, "start must have ids from 1 to 5, got 6"),
        ({"length": 0}, "length must be a whole number of at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be a number from 0, got -1.0"),
        ({"temperature": math.nan}, "temperature must be a number from 0, got nan"),
        ({"never": range(6)}, "never must be some ids from 0 to 5, got (0, 1, 2, 3, 4, 5)"),
    ],
)
def test_wrong_samples_are_refused(arguments, message):
    arguments = {"start": [[2]], "length": 3} | arguments
    assert refusal(sample_tokens, sharp_model(), **arguments) == message


def test_another_model_is_refused():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="other")
    assert refusal(sample_tokens, model, [[2]], 3) == (
        "model must be of build_language_model, got 'other'"
    )


def test_a_text_is_cut_in_order():
    raw = "".join(chr(97 + i % 7) for i in range(500)) + "Q" * 300 + "\u4e2d\u6587\n "
    text = split_text(raw)
    parts = (text.train, text.validation, text.test)
    assert [len(part) for part in parts] == [643, 80, 81]
    assert "".join(map(text.decode, parts))[:780] == raw[:780]
    assert (text.test[-4:] == 1).all()  # training never had them
    assert len(text.decode(text.test)) == 81 and text.decode(text.test[-4:]) == "\u25a1" * 4
    assert text.encode("Qa").tolist() == [2, text.vocabulary.words.index("a") + 2]
    assert refusal(text.encode, "aQ!") == "the text must have known characters only, got '!'"
    assert refusal(text.encode, "") == "the text must have a character, got none"
    assert refusal(split_text, "a" * 99) == "the text must have at least 100 characters, got 99"


def test_what_comes_next_is_the_label():
    ids = np.arange(1, 24)
    x, y = excerpts(ids, 5)
    assert x.shape == (4, 5) and (y == x + 1).all() and (x.ravel() == ids[:20]).all()
    assert refusal(excerpts, ids, 23) == "the text must have more than 23 characters, got 23"
    x, y = long_rows(np.arange(10_001))
    assert x.shape == (10, 1000) and (y.ravel() == np.arange(1, 10_001)).all()
    assert long_rows(np.arange(100_000))[0].shape == (32, 3124)
    assert long_rows(np.arange(30))[0].shape == (9, 3)


def test_what_surprises_more_is_redder(tmp_path):
    path = tmp_path / "text.png"
    plots.surprising_text("ab" * 64, np.tile([0.1, 7.9], 64), path)
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB")).astype(int)
    dark_red = (pixels[..., 0] - pixels[..., 2] > 80).mean()
    plots.surprising_text("ab" * 64, np.full(128, 0.1), path)
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB")).astype(int)
    assert dark_red > 0.3
    assert (pixels[..., 0] - pixels[..., 2] > 80).mean() < 0.1
    assert refusal(plots.surprising_text, "abc", [1, 2], path) == (
        "bits must be one for each of 3 tokens, at least one, got (2,)"
    )
