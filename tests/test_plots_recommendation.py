"""The pictures of recommenders: colours say what the numbers say, and bad input is one line."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from test_plots import LONG, count, near, pixels

from tfcourse import plots
from tfcourse.plots.recommendation import _principal

RNG = np.random.default_rng(0)


def test_components_are_those_of_the_covariance():
    vectors = RNG.normal(size=(50, 5)) * [3, 2, 1, 0.5, 0.1] + 7
    points, shares = _principal(vectors)
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    np.testing.assert_allclose(shares, (values / values.sum())[:-3:-1])
    expected = (vectors - vectors.mean(0)) @ axes[:, :-3:-1]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)


def test_groups_lie_where_their_vectors_do(tmp_path):
    vectors = np.zeros((90, 4))
    vectors[:60, 0] = 20 + RNG.normal(size=60)
    vectors[60:, 0] = -20 + RNG.normal(size=30)
    vectors[:, 1] = RNG.normal(size=90)
    groups = ["很长"] * 60 + ["b"] * 30
    names = {0: LONG, 89: "a $ and a猫"}
    plots.embedding_map(vectors, groups, tmp_path / "a.png", names=names, title="films")
    image = pixels(tmp_path / "a.png").astype(int)
    spread = image[:, : int(0.86 * image.shape[1])]  # without the legend
    blue = np.argwhere(spread[..., 2] > spread[..., 0] + 80)
    orange = np.argwhere(spread[..., 0] > spread[..., 2] + 80)
    assert len(blue) > 500
    assert len(orange) > 250
    assert np.median(blue[:, 1]) > np.median(orange[:, 1]) + 300


def test_a_name_that_would_cover_another_is_left_out(tmp_path):
    vectors = np.array([[0.0, 0], [1, 1], [0.001, 0]])
    groups = ["a", "a", "a"]
    sizes = {}
    for rows in ((), (0,), (0, 2), (0, 1)):
        names = dict.fromkeys(rows, "M" * 12)
        plots.embedding_map(vectors, groups, tmp_path / "a.png", names=names)
        sizes[rows] = count(pixels(tmp_path / "a.png"), "#000000")
    ink = sizes[0,] - sizes[()]
    assert ink > 50
    assert sizes[0, 2] == sizes[0,]
    assert sizes[0, 1] - sizes[()] > 1.5 * ink


def test_only_the_largest_groups_have_colours(tmp_path):
    groups = [f"genre {i}" for i in range(9) for _ in range(9 - i)]
    vectors = RNG.normal(size=(len(groups), 1))
    plots.embedding_map(vectors, groups, tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    assert all(count(image, color) > 20 for color in plots.COLORS[:5])
    assert count(image, "#c8c8c8") > 20
    plots.embedding_map(np.eye(2), ["", ""], tmp_path / "b.png")
    assert all(count(pixels(tmp_path / "b.png"), color) == 0 for color in plots.COLORS[:5])


def test_attention_is_blue_above_zero_and_red_below(tmp_path):
    weights = np.array([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    plots.attention_map(weights, ["new", LONG, "old"], ["liked", "猫" * 40], tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    blue, red = near(image, "#053061"), near(image, "#67001f")
    assert blue > 3000
    assert red == pytest.approx(blue, rel=0.3)
    plots.attention_map(np.zeros((1, 1)), ["a"], ["b"], tmp_path / "b.png")
    plots.attention_map([[1.00, 1.01]], ["a", "b"], ["c"], tmp_path / "c.png")
    one_side = pixels(tmp_path / "c.png")
    assert near(one_side, "#67001f") == 0
    assert near(one_side, "#f7f7f7") < 1000  # the colours' zero, not a cell that is nearly as large
    rim = [image[:8], image[-8:], image[:, :8], image[:, -8:]]
    assert all((side == 255).all() for side in rim)


def test_honest_probabilities_lie_on_the_diagonal(tmp_path, monkeypatch):
    """The points that are drawn, not only that there is a picture."""
    drawn = {}
    plot = Axes.plot

    def remember(axes, x, y, *arguments, label=None, **settings):
        drawn[label] = np.array([x, y])
        return plot(axes, x, y, *arguments, label=label, **settings)

    monkeypatch.setattr(Axes, "plot", remember)
    honest = RNG.uniform(size=40_000)
    labels = RNG.uniform(size=40_000) < honest
    answers = {"honest": honest, "too sure": honest**3 / (honest**3 + (1 - honest) ** 3)}
    plots.calibration_curve(labels, answers, tmp_path / "a.png")
    x, y = drawn["honest"]
    assert len(x) == 10
    np.testing.assert_allclose(x, np.arange(0.05, 1, 0.1), atol=0.01)
    np.testing.assert_allclose(y, x, atol=0.03)
    x, y = drawn["too sure"]
    assert (y[:4] > x[:4] + 0.02).all()
    assert (y[6:] < x[6:] - 0.02).all()
    plots.calibration_curve([1], {"one": [0.5]}, tmp_path / "b.png")
    assert count(pixels(tmp_path / "b.png"), plots.COLORS[0]) > 20


def test_seven_models_have_seven_colours(tmp_path, monkeypatch):
    drawn, plot = [], Axes.plot

    def remember(axes, *arguments, **settings):
        drawn.extend([settings["color"]] if "label" in settings else [])
        return plot(axes, *arguments, **settings)

    monkeypatch.setattr(Axes, "plot", remember)
    answers = {f"model {i}": RNG.uniform(size=50) for i in range(7)}
    plots.calibration_curve(RNG.uniform(size=50) < 0.5, answers, tmp_path / "a.png")
    assert len(drawn) == len(set(drawn)) == 7


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda path: plots.embedding_map(np.eye(3), ["a"], path),
            "vectors must be at least 2, with a group each, got 3 and 1",
        ),
        (
            lambda path: plots.attention_map(np.eye(2), ["a"], ["b", "c"], path),
            "weights must have the shape (candidates, history) = (2, 1), at least (1, 1), "
            "got (2, 2)",
        ),
        (
            lambda path: plots.calibration_curve([0, 1], {"deepfm": [0.5]}, path),
            "probabilities must be as many as labels, 2 and above 0, got {'deepfm': 1}",
        ),
    ],
)
def test_bad_input_is_one_line_and_no_picture(draw, message, tmp_path):
    with pytest.raises(ValueError) as error:
        draw(tmp_path / "a.png")
    assert str(error.value) == message
    assert not list(tmp_path.iterdir())
