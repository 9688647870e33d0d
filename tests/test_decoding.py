"""Searching for the likeliest sequence: against every sequence there is."""

import functools
import gc
import itertools
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcourse.sequence import attention_maps, beam_search, build_seq2seq, greedy_search
from tfcourse.sequence.transformer import build_transformer

SOURCE = np.array([[3, 8, 1, 4, 0], [5, 0, 0, 0, 0], [1, 2, 3, 7, 6]], "int32")
LENGTH, END = 4, 3
WORDS = (1, 4, 5)  # all but padding, start and end


@functools.cache
def network(attention: str) -> keras.Model:
    if attention == "transformer":
        return build_transformer(9, 6, model_dim=8, num_heads=2, hidden_units=8, num_layers=2)
    return build_seq2seq(attention, 9, 6, embedding_dim=4, units=5)


def small(attention: str, seed: int = 0) -> keras.Model:
    """Return a network, always the same one of its kind, with other weights for each seed."""
    model, rng = network(attention), np.random.default_rng(seed)
    model.set_weights([rng.normal(scale=0.9, size=w.shape) for w in model.get_weights()])
    return model


def log_probabilities(model, source, sequences):
    """Return that of each sequence by the model as it is trained, the true tokens being read."""
    target = np.pad(sequences[:, :-1], ((0, 0), (1, 0)), constant_values=2)
    sources = np.repeat(source[None], len(sequences), axis=0)
    logits = np.asarray(model({"source": sources, "target": target}), float)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(logs, sequences[..., None], axis=-1)[..., 0]
    return (chosen * (sequences != 0)).sum(axis=1)


def every_sequence(words=WORDS, length=LENGTH):
    """Return all that end within the length, and all that are as long without having ended."""
    found = [list(row) for row in itertools.product(words, repeat=length)]
    for few in range(length):
        found += [[*row, END] for row in itertools.product(words, repeat=few)]
    return np.array([row + [0] * (length - len(row)) for row in found], "int32")


def exhaustive(model, penalty=0.0, words=WORDS):
    """Return all sequences and their log p for each source, the best first."""
    sequences = every_sequence(words)
    for source in SOURCE:
        scores = log_probabilities(model, source, sequences)
        ranked = scores / ((5 + (sequences != 0).sum(axis=1)) / 6) ** penalty
        order = np.argsort(-ranked, kind="stable")
        yield sequences[order], scores[order]


def same_ranking(ids, scores, sequences, expected):
    """Check that all are there, each with its log p; rounding may swap what are nearly equal."""
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    known = dict(zip(map(tuple, sequences.tolist()), expected, strict=True))
    assert len({tuple(row) for row in ids.tolist()}) == len(known)
    np.testing.assert_allclose(scores, [known[tuple(row)] for row in ids.tolist()], atol=1e-5)


@pytest.mark.parametrize(
    ("attention", "penalty"),
    [
        ("bahdanau", 0.6),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("luong", 0.0), ("none", 2.0), ("transformer", 0.6))
        ),
    ],
)
def test_a_wide_beam_is_exhaustive(attention, penalty):
    model = small(attention)
    ids, scores = beam_search(model, SOURCE, length=LENGTH, beam_width=121, length_penalty=penalty)
    assert ids.shape == (3, 121, 4)
    orders = set()
    for row, expected in enumerate(exhaustive(model, penalty)):
        assert len(expected[0]) == 121
        same_ranking(ids[row], scores[row], *expected)
        orders.add(expected[0].tobytes())
    assert len(orders) == 3  # the source matters


@pytest.mark.slow
def test_the_penalty_changes_what_is_best():
    model = small("none", seed=1)
    short, _ = beam_search(model, SOURCE, length=LENGTH, beam_width=121)
    long, _ = beam_search(model, SOURCE, length=LENGTH, beam_width=121, length_penalty=3.0)
    assert (long[:, 0] != 0).sum() > (short[:, 0] != 0).sum()


@pytest.mark.parametrize("seed", [2, 3])
def test_greedy_takes_the_likeliest_token(seed):
    model = small("none", seed)
    ids, scores = greedy_search(model, SOURCE, length=LENGTH)
    assert len(np.unique(ids, axis=0)) > 1
    target = np.pad(ids[:, :-1], ((0, 0), (1, 0)), constant_values=2)
    logits = np.array(model({"source": SOURCE, "target": target}))
    logits[..., [0, 2]] = -np.inf
    ended = np.cumsum(ids == END, axis=1) - (ids == END) > 0
    np.testing.assert_array_equal(ids, np.where(ended, 0, logits.argmax(axis=-1)))
    for row, source in enumerate(SOURCE):
        expected = log_probabilities(model, source, ids[row : row + 1])
        np.testing.assert_allclose(scores[row], expected[0], atol=1e-5)


def test_a_beam_of_one_is_greedy():
    for seed in range(3):
        model = small("none", seed=seed)
        ids, scores = beam_search(model, SOURCE, length=LENGTH, beam_width=1)
        expected, expected_scores = greedy_search(model, SOURCE, length=LENGTH)
        np.testing.assert_array_equal(ids[:, 0], expected)
        np.testing.assert_allclose(scores[:, 0], expected_scores, atol=1e-5)


def test_a_beam_finds_what_greedy_does_not():
    """And whatever its width, what it returns has the log p that it says, and the best is first."""
    better = 0
    for seed in (1, 7, 8):
        model = small("none", seed=seed)
        _, greedy = greedy_search(model, SOURCE, length=LENGTH)
        ids, scores = beam_search(model, SOURCE, length=LENGTH, beam_width=3)
        better += (scores[:, 0] > greedy + 1e-4).sum()
        assert (np.diff(scores, axis=1) <= 0).all()
        for row, source in enumerate(SOURCE):
            expected = log_probabilities(model, source, ids[row])
            np.testing.assert_allclose(scores[row], expected, atol=1e-5)
    assert better


def test_where_there_are_fewer_sequences_than_beams():
    model = small("none")
    ids, scores = beam_search(model, SOURCE, length=1, beam_width=6)
    np.testing.assert_array_equal(np.sort(ids[:, :4, 0]), [[1, 3, 4, 5]] * 3)
    assert not ids[:, 4:].any()
    np.testing.assert_array_equal(np.isinf(scores), [[False] * 4 + [True] * 2] * 3)


def test_what_is_never_written():
    model = small("none")
    ids, scores = beam_search(model, SOURCE, length=LENGTH, beam_width=40, never=(1,))
    for row, (sequences, expected) in enumerate(exhaustive(model, words=(4, 5))):
        count = len(sequences)  # its p is still that among all tokens
        same_ranking(ids[row, :count], scores[row, :count], sequences, expected)
        assert np.isinf(scores[row, count:]).all()


def test_special_ids_may_be_others():
    """The same network with its tokens renumbered."""
    model, number = small("none"), np.array([5, 3, 0, 1, 4, 2])
    ids, scores = beam_search(model, SOURCE, length=LENGTH, beam_width=3)
    new = dict(zip([w.path for w in model.weights], model.get_weights(), strict=True))
    back = np.argsort(number)
    for name in ("decoder/embedding/embeddings", "decoder/logits/bias"):
        new[name] = new[name][back]
    new["decoder/logits/kernel"] = new["decoder/logits/kernel"][:, back]
    model.set_weights(list(new.values()))
    found, found_scores = beam_search(
        model, SOURCE, length=LENGTH, beam_width=3, special_ids=(5, 0, 1)
    )
    np.testing.assert_array_equal(found, number[ids])
    np.testing.assert_allclose(found_scores, scores, atol=1e-5)


def test_a_graph_sees_new_weights():
    found = [greedy_search(small("none", seed=seed), SOURCE, length=LENGTH) for seed in (2, 3, 2)]
    assert (found[0][0] != found[1][0]).any()
    np.testing.assert_array_equal(found[0][1], found[2][1])


@pytest.mark.parametrize(
    ("attention", "search"),
    [
        ("none", beam_search),
        pytest.param("luong", greedy_search, marks=pytest.mark.slow),
        pytest.param("transformer", beam_search, marks=pytest.mark.slow),
    ],
)
def test_xla_finds_the_same(attention, search):
    model = small(attention)
    compiled = tf.function(lambda x: search(model, x, length=LENGTH), jit_compile=True)
    ids, scores = compiled(tf.constant(SOURCE))
    expected, expected_scores = search(model, SOURCE, length=LENGTH)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            (
                {"source": source},
                r"source must be integers \(rows, length\), both at least 1, got " + got,
            )
            for source, got in (
                (SOURCE[0], r"int32 \(5,\)"),
                (SOURCE / 2, r"float64 \(3, 5\)"),
                (SOURCE[:, :0], r"int32 \(3, 0\)"),
                (SOURCE[:0], r"int32 \(0, 5\)"),
                ([], r"float64 \(0,\)"),
            )
        ),
        ({"source": SOURCE + 1}, "source must have ids from 0 to 8, got 9"),
        ({"source": SOURCE - 1}, "source must have ids from 0 to 8, got -1"),
        ({"length": 0}, "length must be a whole number of at least 1, got 0"),
        ({"beam_width": 1.5}, "beam_width must be a whole number of at least 1, got 1.5"),
        *(
            ({"length_penalty": x}, f"length_penalty must be from 0 to 10, got {x}")
            for x in (-1, 11, float("nan"))
        ),
        *(
            (
                {"special_ids": ids},
                "special_ids must be three from 0 to 5, of padding, start and end, "
                + rf"got \({ids[0]}, {ids[1]}, {ids[2]}\)",
            )
            for ids in ((0, 0, 3), (0, 2, 6), (-1, 2, 3))
        ),
        ({"never": (1, 3)}, r"never must not have the end, 3, got \(1, 3\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        beam_search(small("none"), **{"source": SOURCE, "length": 3} | arguments)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (SOURCE, SOURCE[0], r"target must be integers .*, got int32 \(5,\)"),
        (SOURCE, SOURCE[:2] % 6, "target must have a row for each of source's 3, got 2"),
        (SOURCE, SOURCE, "target must have ids from 0 to 5, got 8"),
        (SOURCE * 2, SOURCE, "source must have ids from 0 to 8, got 16"),
    ],
)
def test_maps_are_of_ids(source, target, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        attention_maps(network("luong"), source, target)


def test_arguments_may_be_of_numpy_or_lists():
    model, (length, width, *rest) = small("none"), np.array([LENGTH, 3, 1])
    expected = beam_search(model, SOURCE, length=LENGTH, beam_width=3, never=(1,))
    found = beam_search(
        model,
        SOURCE.tolist(),
        length=length,
        beam_width=width,
        length_penalty=np.float32(0),
        special_ids=np.array([0, 2, 3]),
        never=rest,
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_network_is_forgotten():
    """Compiled functions keep no network alive."""
    model = build_seq2seq("luong", 9, 6, embedding_dim=2, units=2)
    greedy_search(model, SOURCE, length=2)
    seen = weakref.ref(model), weakref.ref(model.weights[0])
    del model
    gc.collect()
    assert [one() for one in seen] == [None, None]


def test_a_network_that_does_not_attend_has_no_map():
    with pytest.raises(ValueError, match=r"attention must be 'bahdanau' .* got 'none'$"):
        attention_maps(small("none"), SOURCE, SOURCE % 6)
