"""Initial weights, and the argument of variances behind them.

A neuron adds up z = sum_i w_i x_i over its inputs. If weights and inputs are independent, and the
weights have mean 0, then

    Var(z) = inputs Var(w) E(x^2).

So each layer multiplies the size of the signal by inputs Var(w). Backwards, the gradient of an
input is a sum over the outputs, and the factor is outputs Var(w). Over ten layers a factor of 1/2
leaves a thousandth, and one of 2 makes it a thousand times larger: it had better be 1.
Every function returns weights `(inputs, outputs)` for rows of examples, z = x W.
"""

import math

import numpy as np


def zeros(rng: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    """w = 0. Right for biases, not for the weights of hidden layers.

    All neurons of a layer would compute the same and get the same gradient, so they would stay
    the same neuron; and as no signal passes a zero, the layers before them get no gradient.

    Args:
        rng: Not used; the other initializers draw from it.
        inputs: How many numbers go into each neuron.
        outputs: How many neurons there are.

    Raises:
        ValueError: If `inputs` or `outputs` is below 1.
    """
    _check_sizes(inputs, outputs)
    return np.zeros((inputs, outputs))


def normal(rng: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    """w from N(0, 0.01), where 0.01 is the standard deviation: AlexNet's start.

    Var(w) = 0.0001 whatever the width: 256 inputs multiply the variance by 0.0256, so the signal
    dies out in a deep stack. At 10,000 inputs it would be just right.

    Args:
        rng: What is drawn from.
        inputs: How many numbers go into each neuron.
        outputs: How many neurons there are.

    Raises:
        ValueError: If `inputs` or `outputs` is below 1.
    """
    _check_sizes(inputs, outputs)
    return rng.normal(0.0, 0.01, (inputs, outputs))


def xavier(rng: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    """w uniform in -a to a, a = sqrt(6 / (inputs + outputs)), for activations like tanh.

    Forwards Var(w) = 1 / inputs keeps the variance, backwards 1 / outputs; the mean of the two
    numbers serves both: Var(w) = 2 / (inputs + outputs). A uniform draw has the variance a^2 / 3,
    which gives a. Near 0 tanh is the identity, so the argument holds through it.
    Glorot & Bengio (2010), https://proceedings.mlr.press/v9/glorot10a.html, equation 16; the
    default of Keras' dense layers.

    Args:
        rng: What is drawn from.
        inputs: How many numbers go into each neuron.
        outputs: How many neurons there are.

    Raises:
        ValueError: If `inputs` or `outputs` is below 1.
    """
    _check_sizes(inputs, outputs)
    limit = math.sqrt(6 / (inputs + outputs))
    return rng.uniform(-limit, limit, (inputs, outputs))


def he(rng: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    """w from N(0, sqrt(2 / inputs)), the second number the standard deviation: for ReLU.

    ReLU cuts off half of a symmetric z, so E(x^2) = Var(z) / 2 in the layer above, and
    Var(w) = 2 / inputs makes up for the half. Backwards it would be 2 / outputs, but a network
    that keeps one of the two changes the other only by the ratio of its widths.
    He, Zhang, Ren & Sun (2015), https://arxiv.org/abs/1502.01852, equation 10. Keras' he_normal
    has the same variance but cuts the tails off.

    Args:
        rng: What is drawn from.
        inputs: How many numbers go into each neuron.
        outputs: How many neurons there are.

    Raises:
        ValueError: If `inputs` or `outputs` is below 1.
    """
    _check_sizes(inputs, outputs)
    return rng.normal(0.0, math.sqrt(2 / inputs), (inputs, outputs))


def _check_sizes(inputs: int, outputs: int) -> None:
    if inputs < 1 or outputs < 1:
        raise ValueError(f"inputs and outputs must be 1 or more, got {inputs} and {outputs}")


INITIALIZERS = {"zeros": zeros, "normal": normal, "xavier": xavier, "he": he}
