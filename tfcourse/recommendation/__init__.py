"""Recommenders: from the columns of a user and an item to a score, and to lists."""

import tfcourse

tfcourse.require_tensorflow()

from tfcourse.recommendation.als import fit_als  # noqa: E402
from tfcourse.recommendation.approximate_index import ApproximateIndex  # noqa: E402
from tfcourse.recommendation.bpr import draw_pairs, pairwise  # noqa: E402
from tfcourse.recommendation.cold_start import add_to_history, vectors_of  # noqa: E402
from tfcourse.recommendation.collaborative_filtering import (  # noqa: E402
    fit_item_cf,
    fit_user_cf,
)
from tfcourse.recommendation.deepfm import build_deepfm  # noqa: E402
from tfcourse.recommendation.dien import build_dien  # noqa: E402
from tfcourse.recommendation.din import build_din  # noqa: E402
from tfcourse.recommendation.embedding_mlp import build_embedding_mlp  # noqa: E402
from tfcourse.recommendation.factorization_machine import build_factorization_machine  # noqa: E402
from tfcourse.recommendation.graph_embedding import (  # noqa: E402
    fit_deepwalk,
    make_graph,
    transitions,
)
from tfcourse.recommendation.in_batch import InBatchSoftmax  # noqa: E402
from tfcourse.recommendation.index import TopK  # noqa: E402
from tfcourse.recommendation.interactions import rating_matrix  # noqa: E402
from tfcourse.recommendation.interest import attention_of  # noqa: E402
from tfcourse.recommendation.item2vec import fit_item2vec  # noqa: E402
from tfcourse.recommendation.matrix_factorization import (  # noqa: E402
    build_matrix_factorization,
)
from tfcourse.recommendation.neural_cf import build_neural_cf, start_from  # noqa: E402
from tfcourse.recommendation.serving import export  # noqa: E402
from tfcourse.recommendation.two_tower import build_two_tower  # noqa: E402
from tfcourse.recommendation.wide_and_deep import build_wide_and_deep  # noqa: E402

__all__ = [
    "ApproximateIndex",
    "InBatchSoftmax",
    "TopK",
    "add_to_history",
    "attention_of",
    "build_deepfm",
    "build_dien",
    "build_din",
    "build_embedding_mlp",
    "build_factorization_machine",
    "build_matrix_factorization",
    "build_neural_cf",
    "build_two_tower",
    "build_wide_and_deep",
    "draw_pairs",
    "export",
    "fit_als",
    "fit_deepwalk",
    "fit_item2vec",
    "fit_item_cf",
    "fit_user_cf",
    "make_graph",
    "pairwise",
    "rating_matrix",
    "start_from",
    "transitions",
    "vectors_of",
]
