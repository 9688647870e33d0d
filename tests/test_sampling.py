"""Negatives: drawn as often as said, never what was seen, the same again from the same seed."""

import numpy as np
import pytest
from scipy.stats import chisquare

from tfcourse.recommendation.sampling import NegativeSampler, in_batch_log_q, popularity

ITEMS = np.repeat(np.arange(5), (16, 81, 1, 0, 2))
NOTHING = (np.zeros(0, int), np.zeros(0, int))


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(0, [1, 1, 1, 1, 1]), (0.75, [8, 27, 1, 0, 2**0.75]), (1, [16, 81, 1, 0, 2])],
)
def test_popularity_to_the_power_of_alpha(alpha, expected):
    found = popularity(ITEMS, 5, alpha)
    np.testing.assert_allclose(found, np.array(expected) / np.sum(expected), atol=1e-12)
    drawn = NegativeSampler(found, NOTHING, seed=1).draw((40_000,))
    counts = np.bincount(drawn, minlength=5)
    assert (counts[found == 0] == 0).all()
    assert chisquare(counts[found > 0], 40_000 * found[found > 0]).pvalue > 1e-3


def test_what_was_seen_is_never_drawn_and_the_rest_keeps_its_proportions():
    seen = (np.array([0, 0, 1, 3, 3, 3]), np.array([1, 4, 0, 0, 1, 2]))
    sampler = NegativeSampler(popularity(ITEMS, 5), seen)
    users = np.repeat([3, 1, 0, 2], 5_000)
    drawn = sampler.draw_unseen(users, 2)
    assert drawn.shape == (20_000, 2) and drawn.dtype == np.int32
    for user in range(4):
        q = popularity(ITEMS, 5)
        q[seen[1][seen[0] == user]] = 0
        counts = np.bincount(drawn[users == user].ravel(), minlength=5)
        assert (counts[q == 0] == 0).all()
        if (q > 0).sum() > 1:
            assert chisquare(counts[q > 0], 10_000 * q[q > 0] / q.sum()).pvalue > 1e-3


def test_what_is_left_may_be_hardly_ever_drawn():
    """A user who has seen all but two items in a million of what is drawn."""
    weights = np.full(2000, 1.0)
    weights[-2:] = 1e-3, 3e-3
    sampler = NegativeSampler(weights / weights.sum(), (np.zeros(1998, int), np.arange(1998)))
    counts = np.bincount(sampler.draw_unseen(np.zeros(400, int), 1).ravel(), minlength=2000)
    assert counts[:-2].sum() == 0
    assert chisquare(counts[-2:], [100, 300]).pvalue > 1e-3


def test_a_seed_gives_the_same_draws():
    def draws(seed):
        return NegativeSampler(np.full(50, 0.02), NOTHING, seed).draw_unseen(np.arange(9), 7)

    assert (draws(3) == draws(3)).all()
    assert (draws(3) != draws(4)).any()


def test_log_q_is_how_often_an_item_is_in_a_batch():
    found = in_batch_log_q(ITEMS, 5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found), [0.16, 0.81, 0.01, 0.01, 0.02], rtol=1e-6)
    # The mean of exp(s - log q) over draws from q is the sum of exp(s) over the items drawn.
    scores = np.array([0.3, -1, 0.5, 0, 2])
    drawn = np.random.default_rng(0).choice(ITEMS, 200_000)
    weighted = np.exp(scores - found)[drawn]
    error = 4 * weighted.std() / np.sqrt(len(drawn))
    assert weighted.mean() == pytest.approx(np.exp(scores[[0, 1, 2, 4]]).sum(), abs=error)


REFUSED = [
    (lambda: popularity(ITEMS, 4), "items must be from 0 to 3, got 4 in row 98"),
    (lambda: popularity(np.array([1, -2]), 4), "items must be from 0 to 3, got -2 in row 1"),
    (lambda: in_batch_log_q([], 4), "items must have at least one row, got none"),
    (lambda: popularity(ITEMS, 5, -1), "alpha must be 0 or more, got -1"),
    (lambda: NegativeSampler([0.5, 0.4], NOTHING), "0 or more and add up to 1, got 0.9"),
    (lambda: NegativeSampler([0.5, np.nan], NOTHING), "0 or more and add up to 1, got nan"),
    (lambda: NegativeSampler([0.5, 0.5], ([0], [2])), "items must be from 0 to 1, got 2 in row 0"),
    (
        lambda: NegativeSampler([0.5, 0.5, 0], ([0, 4, 4], [0, 0, 1])).draw_unseen([0, 4], 1),
        "user 4 must have an item to be drawn that was not seen, got 2 seen of 2",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
