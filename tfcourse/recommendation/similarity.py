"""The most similar rows of a sparse matrix, found block by block as matrix products.

Sums over the columns that two rows have in common are products of sparse matrices: of their numbers
x x', of their squares with the other's places x^2 1', and of their places 1 1', which counts. No
more than a block of them is ever there, and of that the best `k` of each row are kept, so memory is
rows times `k`, never rows times rows.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy import sparse

from tfcourse.recommendation.interactions import best, rows_of, with_data

SIMILARITIES = ("adjusted_cosine", "cosine", "pearson")
BLOCK = 2_000_000  # similarities that a thread has before it keeps the best
ROUNDING = 1e-9  # of a rating: as much as a difference from a mean equal to it may be
SMALLEST = 1e-30  # product of sums of squares


class Powers(NamedTuple):
    """A matrix to the powers 1, 2 and 0, at the places where something is: also where it is 0."""

    values: sparse.csr_array
    squares: sparse.csr_array
    ones: sparse.csr_array


def powers(matrix: sparse.csr_array) -> Powers:
    """Return a matrix with its squares and its places."""
    data = matrix.data
    return Powers(*(with_data(matrix, part) for part in (data, np.square(data), 1.0)))


def row_means(matrix: sparse.csr_array) -> np.ndarray:
    """Return the mean of what is in each row, 0 where nothing is."""
    sums = np.bincount(rows_of(matrix), matrix.data, matrix.shape[0])
    return sums / np.maximum(np.diff(matrix.indptr), 1)


def centre(matrix: sparse.csr_array, similarity: str, column_means: np.ndarray) -> sparse.csr_array:
    """Subtract what a similarity leaves out, and scale each row to length 1.

    That changes no similarity, and in 32 bits neither the squares of large numbers overflow nor
    those of small ones vanish.

    Args:
        matrix: Ratings.
        similarity: "cosine" leaves out nothing, "adjusted_cosine" the means of the columns,
            "pearson" those of the rows.
        column_means: Of the matrix, or of that which it is to be compared with.
    """
    rows, x = rows_of(matrix), matrix.data.copy()
    if similarity == "adjusted_cosine":
        x -= column_means[matrix.indices]
    elif similarity == "pearson":
        x -= row_means(matrix)[rows]
    x[np.abs(x) <= ROUNDING * np.abs(matrix.data)] = 0
    lengths = np.sqrt(np.bincount(rows, x**2, matrix.shape[0]))
    return with_data(matrix, x / np.where(lengths > 0, lengths, 1)[rows])


def similarities(
    rows: Powers, columns: Powers, shrinkage: float, in_common: bool = True
) -> np.ndarray:
    """Compare some rows with all.

    Args:
        rows: `(some, n)`, of length 1.
        columns: All rows, turned: `(n, all)`.
        shrinkage: How many columns in common make half of a similarity count.
        in_common: Whether the squares of a pair are summed over the columns in common only.

    Returns:
        n / (n + shrinkage) * sum(x y) / sqrt(sum(x^2) sum(y^2)), `(some, all)`.
    """
    result = (rows.values @ columns.values).toarray()
    if in_common:
        norms = (rows.squares @ columns.ones).toarray()
        norms *= (rows.ones @ columns.squares).toarray()
        # Where two rows have nothing in common, 0 is divided by something.
        result /= np.sqrt(np.maximum(norms, SMALLEST, out=norms), out=norms)
    common = (rows.ones @ columns.ones).toarray()
    result *= common / np.maximum(common + shrinkage, 1)
    return result


def keep_best(found: np.ndarray, k: int) -> sparse.csr_array:
    """Keep the `k` largest similarities above 0 of each row `(rows, all)`."""
    found[found <= 0] = -np.inf
    columns = best(found, min(k, found.shape[1]))
    kept = columns >= 0
    starts = np.concatenate([[0], kept.sum(axis=1).cumsum()])
    values = np.take_along_axis(found, columns, axis=1)[kept]
    matrix = sparse.csr_array((values, columns[kept].astype("int32"), starts), shape=found.shape)
    matrix.sort_indices()
    return matrix


def nearest(
    centred: sparse.csr_array, k: int, shrinkage: float, in_common: bool
) -> sparse.csr_array:
    """Find the `k` most similar other rows of every row, in as many threads as there are cores.

    Args:
        centred: `(rows, columns)`, from `centre`.
        k: How many at most; only what is similar at all, above 0, is a neighbour.
        shrinkage: As in `similarities`.
        in_common: As there.

    Returns:
        The similarities `(rows, rows)`, with at most `k` in a row.
    """
    count = centred.shape[0]
    rows, columns = powers(centred), powers(centred.T.tocsr())
    size = max(1, BLOCK // count)

    def block(first: int) -> sparse.csr_array:
        some = slice(first, min(first + size, count))
        found = similarities(Powers(*(part[some] for part in rows)), columns, shrinkage, in_common)
        found[np.arange(len(found)), np.arange(count)[some]] = 0  # nobody is his own neighbour
        return keep_best(found, k)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sparse.vstack(list(pool.map(block, range(0, count, size))), format="csr")
