"""Whether XLA is worth while: a trial of both ways that changes nothing."""

import time
from collections.abc import Callable

import keras

from tfcourse.training.restoring import all_variables, unknown_variables

STEPS, REPEATS = 8, 3


def choose(model: keras.Model, data, loop_over: Callable, jit_compile: bool | str) -> bool:
    """Return whether to compile the steps.

    Args:
        model: A built model.
        data: What it is going to be trained on.
        loop_over: Makes the inner loop, from `data` and whether it is compiled.
        jit_compile: Yes, no, or "auto": XLA if a few steps of it are faster. On a CPU XLA is
            several times slower on convolutions, and takes long to find that out: never there.
    """
    if jit_compile != "auto":
        return bool(jit_compile)
    if model.run_eagerly or not _may_gain(model):
        return False
    seconds = {}
    for way in (False, True):
        loop = loop_over(data, way)
        variables = all_variables(model)
        variables += unknown_variables(loop.graph(), [v.value for v in variables])
        before = [v.numpy() for v in variables]
        try:
            seconds[way] = _time(loop)
        finally:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
    model.reset_metrics()
    return seconds[True] < seconds[False]


def _time(loop) -> float:
    """Return the seconds of a step: the least of some repeats, after one to warm up."""
    loop.begin(0)
    least = float("inf")
    for repeat in range(1 + REPEATS):
        start = time.perf_counter()
        done, _ = loop.run(STEPS)
        seconds = time.perf_counter() - start
        if repeat and done:
            least = min(least, seconds / done)
        if done < STEPS:
            loop.begin(0)
    return least


def _may_gain(model: keras.Model) -> bool:
    """Tell whether a model has no convolutions and nothing whose inside is unknown."""
    several = model.distribute_strategy.num_replicas_in_sync > 1
    for layer in model._flatten_layers():
        names = [kind.__name__ for kind in type(layer).__mro__]
        if any("Conv" in name for name in names) or "HubLayer" in names:
            return False
        if several and isinstance(layer, keras.layers.BatchNormalization | keras.layers.RNN):
            return False
    return True
