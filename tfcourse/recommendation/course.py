"""The columns of the course that this part follows (SparrowRecSys), as its scripts read them.

https://github.com/wzhe06/SparrowRecSys. With `variant="course"` the builders make its networks of
these columns, to the last parameter; `"paper"` is what to use on data of one's own.

The course has 1,001 films, 30,001 users and 19 genres, and where a value is missing a vector of
zeros. Ours is id 0, which has a row like any other. Films and users are numbered from 1 there, so
that row 0 of its tables is free. Of the genres one has to go, for as many rows: IMAX, which says
how a film is shown and is the one that MovieLens-100k does not have. Numbers are fed as they are
there, years beside shares; `data.pipeline` scales them.
"""

from tfcourse.data.features import Category, Cross, History, Number

# The ids 1 to 18 of a genre.
GENRES = (
    *("Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller"),
    *("War", "Western"),
)

MOVIE = Category("movieId", 1_001)
USER = Category("userId", 30_001)
RATED = Category("userRatedMovie1", 1_001)
HISTORY = History("userRatedMovies", item=MOVIE, length=5)
USER_GENRES = [Category(f"userGenre{n}", 1 + len(GENRES)) for n in range(1, 6)]
MOVIE_GENRES = [Category(f"movieGenre{n}", 1 + len(GENRES)) for n in range(1, 4)]
USER_NUMBERS = [Number(n) for n in ("userRatingCount", "userAvgRating", "userRatingStddev")]
MOVIE_NUMBERS = [
    Number(n) for n in ("releaseYear", "movieRatingCount", "movieAvgRating", "movieRatingStddev")
]
NUMBERS = [*MOVIE_NUMBERS, *USER_NUMBERS]

EMBEDDING_MLP = [*USER_GENRES, *MOVIE_GENRES, MOVIE, USER, *NUMBERS]
WIDE_AND_DEEP = [*EMBEDDING_MLP, Cross("movieId_x_userRatedMovie1", (MOVIE, RATED), 10_000)]
DEEPFM = [MOVIE, USER, USER_GENRES[0], MOVIE_GENRES[0], *NUMBERS]
DIN = [USER, USER_GENRES[0], *USER_NUMBERS, HISTORY, MOVIE, MOVIE_GENRES[0], *MOVIE_NUMBERS]

# What DeepFM's course variant multiplies; its deep part has the columns of the first pair.
PAIRS = (
    ("movieId", "userId"),
    ("movieGenre1", "userGenre1"),
    ("movieGenre1", "userId"),
    ("movieId", "userGenre1"),
)


def examples(builder: str) -> dict[str, object]:
    """Return columns to look at a model with: what the builder of this name needs, and more."""
    features = {"embedding_mlp": EMBEDDING_MLP, "wide_and_deep": WIDE_AND_DEEP, "deepfm": DEEPFM}
    return {
        "features": features.get(builder, DIN),
        "user": USER,
        "item": MOVIE,
        "user_features": [USER, *USER_GENRES, HISTORY],
        "item_features": [MOVIE, *MOVIE_GENRES],
    }
