"""Two stages: what comes out is what both say, for anybody, and follows the history."""

import keras
import numpy as np
import pytest
from test_clicks import ITEMS, USERS, make_ratings

from tfcourse.data.events import make_events
from tfcourse.data.pipeline import Normalised, Pipeline, Sequence, Vocabulary
from tfcourse.recommendation import build_din, build_two_tower, vectors_of
from tfcourse.recommendation.two_stage import TwoStage

FILM = [Vocabulary("item"), Vocabulary("genre1")]


@pytest.fixture(scope="module")
def catalogue():
    facts = make_ratings().item_facts
    genres = [name.split("|")[0] for name in facts["genres"]]
    return {"item": facts["item"], "genre1": np.array(genres, object)}


@pytest.fixture(scope="module")
def stages(catalogue):
    keras.utils.set_random_seed(0)
    events = make_events(make_ratings(), history_length=4, with_statistics=False)
    events["nearness"] = np.resize([-1.0, 1.0], len(events["item"]))
    specs = [*FILM, Sequence("seen", length=4), Normalised("age"), Normalised("nearness")]
    pipeline = Pipeline(specs).fit(events)
    item, genre, seen, age, near = pipeline.features
    towers = build_two_tower([seen, age], [item, genre], embedding_dim=4, hidden_units=(4,))
    ranker = build_din(
        [item, genre, seen, near], embedding_dim=4, hidden_units=(4,), attention_units=(3,)
    )
    for model in (towers, ranker):  # larger than at first, so that scores differ
        model.set_weights([8 * weight for weight in model.get_weights()])
    blank = dict.fromkeys(("age", "nearness"), [0] * ITEMS)
    films = pipeline.transform({"seen": [[]] * ITEMS, **blank, **catalogue})
    vectors = vectors_of(towers.get_layer("item_tower"), films)
    return TwoStage(towers.get_layer("user_tower"), ranker, pipeline, vectors, catalogue)


def by_hand(stages, catalogue, history, age, *, count=ITEMS, without=()):
    """Score all films by both stages, one after the other."""
    pipeline, vectors = stages.pipeline, stages.vectors
    table = {"seen": [history] * ITEMS, "age": [age] * ITEMS, "nearness": [0] * ITEMS, **catalogue}
    columns = pipeline.transform(table)
    query = np.asarray(stages.user_tower({n: columns[n][:1] for n in ("seen", "age")}))[0]
    near = vectors @ query
    left = [row for row in np.argsort(-near) if str(row + 1) not in without][:count]
    # A product goes into the ranker by way of the pipeline, as when it is served.
    columns = pipeline.transform(table | {"nearness": near})
    columns = {name: columns[name] for name in stages.ranker.input}
    logits = stages.ranker.predict(columns, verbose=0).ravel()
    order = sorted(left, key=lambda row: -logits[row])
    cosines = vectors @ vectors.T
    reasons = {row: max(history, key=lambda item: cosines[row, int(item) - 1]) for row in left}
    return [(str(row + 1), logits[row], reasons[row]) for row in order]


@pytest.mark.parametrize(("history", "age"), [(["7", "3", "12"], 33), (["5"], None)])
def test_lists_are_what_both_stages_say(stages, catalogue, history, age):
    exclude = ["20", "21", "22"]
    facts = {} if age is None else {"age": age}
    found = stages.recommend(history, facts, k=6, candidates=15, exclude=exclude)
    expected = by_hand(stages, catalogue, history, age, count=15, without=[*history, *exclude])[:6]
    assert [line.item for line in found] == [item for item, _, _ in expected]
    odds = [1 / (1 + np.exp(-logit)) for _, logit, _ in expected]
    np.testing.assert_allclose([line.probability for line in found], odds, atol=1e-5)
    assert [line.because for line in found] == [because for _, _, because in expected]


def test_many_users_get_the_same_scores_as_one(stages, catalogue):
    blank = {name: [1, 1] for name in ("item", "genre1", "nearness")}
    users = stages.pipeline.transform({"seen": [["7", "3"], []], "age": [1, 2], **blank})
    places = np.array([[0, 5, 30], [9, 8, 7]])
    query = np.asarray(stages.user_tower({name: users[name] for name in ("seen", "age")}))
    near = np.einsum("ud,ucd->uc", query, stages.vectors[places])
    logits = stages.rank(users["seen"], places, near)
    expected = {item: logit for item, logit, _ in by_hand(stages, catalogue, ["7", "3"], 1)}
    np.testing.assert_allclose(logits[0], [expected[str(1 + p)] for p in places[0]], atol=1e-5)
    assert logits.shape == (2, 3)


def test_a_list_changes_with_the_history_and_never_has_it(stages):
    before = stages.recommend(["7", "3"], k=10, candidates=20)
    watched = before[0].item
    after = stages.recommend([watched, "7", "3"], k=10, candidates=20)
    assert watched not in [line.item for line in after]
    assert [line.item for line in after] != [line.item for line in before[1:]]
    assert not {"7", "3"} & {line.item for line in before}


def test_somebody_of_whom_nothing_is_known_gets_a_list(stages):
    found = stages.recommend([], k=5)
    assert len({line.item for line in found}) == 5
    assert {line.because for line in found} == {None}
    unknown = stages.recommend(["no such film"], k=5)
    assert [line.item for line in unknown] == [line.item for line in found]


def test_attention_has_a_row_for_each_item_and_no_padding(stages):
    weights = stages.attention(["7", "no such film", "3"], ["9", "30"])
    assert weights.shape == (2, 2)
    alone = stages.attention(["3"], ["30"])
    np.testing.assert_allclose(weights[1, 1], alone[0, 0], rtol=1e-5)
    assert weights[0, 1] != weights[1, 1]
    with pytest.raises(ValueError) as error:
        stages.attention(["3"], ["9", "no such film"])
    assert str(error.value) == "items must be in the catalogue, got 'no such film'"


def test_what_was_liked_may_have_left_the_catalogue(stages, catalogue):
    """Films 1 to 30 are offered no more; a history still has them, and they are no reason."""
    left = {name: column[30:] for name, column in catalogue.items()}
    parts = (stages.user_tower, stages.ranker, stages.pipeline, stages.vectors[30:], left)
    found = TwoStage(*parts).recommend(["7", "40", "3"], k=8)
    assert min(int(line.item) for line in found) > 30
    assert {line.because for line in found} == {"40"}
    assert {line.because for line in TwoStage(*parts).recommend(["7"], k=8)} == {None}


def test_an_unknown_fact_is_one_line(stages):
    with pytest.raises(ValueError) as error:
        stages.recommend(["7"], {"aeg": 30})
    assert str(error.value) == "facts must be among age, got 'aeg'"


def test_too_long_a_list_is_one_line(stages):
    with pytest.raises(ValueError) as error:
        stages.recommend(["1"], k=ITEMS)
    assert str(error.value) == f"k must be from 1 to the {ITEMS - 1} candidates, got {ITEMS}"
    with pytest.raises(ValueError, match=r"^k must be from 1 to the 4 candidates, got 5$"):
        stages.recommend(["1"], k=5, candidates=4)


def test_saved_and_loaded_it_says_the_same(stages, tmp_path):
    stages.save(tmp_path)
    again = TwoStage.load(tmp_path)
    asked = (["7", "3", "12"], {"age": 1 + USERS})
    assert again.recommend(*asked) == stages.recommend(*asked)
