"""The perceptron (Rosenblatt, 1958), https://doi.org/10.1037/h0042519, and what it cannot do.

A neuron with a step for an activation: 1 if w . x + b > 0, else 0. The step has no slope, so there
is no gradient; Rosenblatt's rule moves the weights only where the answer is wrong:

    w <- w + (target - answer) x        b <- b + (target - answer)

Count the bias as one more weight, of an input that is always 1. If a line (a plane, ...) through
the origin then separates the rows with a margin g, and none is longer than R, the rule makes at
most (R / g)^2 mistakes, whatever their order (Novikoff, 1962). If no line does, it goes on for
ever. Minsky and Papert (1969) made XOR the famous case. It would take

    b <= 0,   w_1 + b > 0,   w_2 + b > 0,   w_1 + w_2 + b <= 0

and the sum of the two in the middle, w_1 + w_2 + 2 b > 0, contradicts the sum of the others. So
three of the four rows are the best that any line does. One hidden layer is enough: `mlp`.
"""

import numpy as np

from tfcourse.basics._checks import check_columns

# The four rows of two inputs, and what each function answers.
INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
TRUTH_TABLES = {
    "and": np.array([0, 0, 0, 1]),
    "or": np.array([0, 1, 1, 1]),
    "xor": np.array([0, 1, 1, 0]),
}


class Perceptron:
    """A perceptron.

    Attributes:
        weights: `(inputs,)`, at first zeros: a larger or smaller rate would only scale them.
        bias: A number, at first zero.
    """

    def __init__(self, inputs: int):
        """Begin with zeros.

        Raises:
            ValueError: If there is no input.
        """
        if inputs < 1:
            raise ValueError(f"inputs must be at least 1, got {inputs}")
        self.weights = np.zeros(inputs)
        self.bias = 0.0

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return 0 or 1 for each row, `(rows, inputs) -> (rows,)`."""
        return (check_columns(x, len(self.weights)) @ self.weights + self.bias > 0).astype(int)

    def train(self, x: np.ndarray, y: np.ndarray, epochs: int = 100) -> list[int]:
        """Apply the rule to row after row, until an epoch goes by without a mistake.

        Args:
            x: `(rows, inputs)`.
            y: Targets of 0 or 1, `(rows,)`.
            epochs: How many at most.

        Returns:
            The mistakes in each epoch; the last is 0 if the rule has come to its end.

        Raises:
            ValueError: If a target is neither 0 nor 1, there are not as many as rows, or no epochs.
        """
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        x, y = check_columns(x, len(self.weights)), np.asarray(y)
        if y.shape != (len(x),) or not np.isin(y, (0, 1)).all():
            raise ValueError(f"y must be {len(x)} targets of 0 or 1, got {y.tolist()}")
        mistakes = []
        for _ in range(epochs):
            mistakes.append(0)
            for row, target in zip(x, y, strict=True):
                error = int(target) - int(row @ self.weights + self.bias > 0)
                self.weights += error * row
                self.bias += error
                mistakes[-1] += abs(error)
            if not mistakes[-1]:
                break
        return mistakes
