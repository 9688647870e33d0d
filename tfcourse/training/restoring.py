"""What a run consists of, and whether it can go on in the middle of an epoch."""

import contextlib
import re
import shutil
import tempfile
import weakref
from pathlib import Path

import keras
import tensorflow as tf

from tfcourse.data.in_memory import InMemory

# Operations of a graph whose random numbers come from a state that nothing can save.
RANDOM = re.compile(r"^(Random|TruncatedNormal|ParameterizedTruncated|Multinomial)(?!.*Crop)")


def signature(data: tf.data.Dataset | InMemory) -> dict[str, object]:
    """Return what a continued run must have in common: all but the data's values."""
    if isinstance(data, InMemory):
        return data.signature()
    return {"batches": [f"{x.dtype.name} {x.shape}" for x in keras.tree.flatten(data.element_spec)]}


# The settings that an optimizer was compiled with: a callback may change its learning rate.
_compiled = weakref.WeakKeyDictionary()


def described(model: keras.Model) -> dict[str, object]:
    """Return how a model was built and compiled, each setting by its name."""
    settings = {}
    for i, layer in enumerate(model._flatten_layers()):
        if not list(layer._flatten_layers(include_self=False)):  # else its parts say it
            with contextlib.suppress(NotImplementedError):
                config = {k: v for k, v in layer.get_config().items() if k != "name"}
                settings |= _flat(config, f"layer {i} {type(layer).__name__}")
    with contextlib.suppress(TypeError, ValueError, NotImplementedError, AttributeError):
        compiled = model.get_compile_config()
        parts = {name: compiled.get(name) for name in ("loss", "loss_weights")}
        settings |= _flat(_without_names(parts), "compiled")
    if model.optimizer is not None:
        if model.optimizer not in _compiled:
            config = _without_names(model.optimizer.get_config())
            _compiled[model.optimizer] = _flat(config, "optimizer")
        settings |= _compiled[model.optimizer]
    return settings


def _flat(config, name: str) -> dict[str, object]:
    """Return the leaves of nested settings, by their path."""
    if not isinstance(config, dict):
        plain = isinstance(config, str | int | float | bool | list | tuple | None)
        return {name: str(config) if plain else type(config).__name__}
    parts = [_flat(value, f"{name}.{key}") for key, value in config.items()]
    return {key: value for part in parts for key, value in part.items()}


def _without_names(config):
    """Leave out the names, which Keras numbers through a process."""
    if isinstance(config, dict):
        return {k: _without_names(v) for k, v in config.items() if k != "name"}
    return config


def all_variables(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of a model, its optimizer and its metrics, each once."""
    optimizer = model.optimizer.variables if model.optimizer is not None else []
    metrics = [v for metric in model.metrics for v in metric.variables]
    return list({id(v): v for v in [*model.variables, *optimizer, *metrics]}.values())


def unknown_variables(graph, known: list[tf.Variable]) -> list[tf.Variable]:
    """Return what a step changes besides: a second optimizer, a random generator."""
    seen = {id(part) for v in known for part in (v, *getattr(v, "values", ()))}
    found = {id(_container(v)): _container(v) for v in graph.variables}
    unknown = [v for i, v in found.items() if i not in seen]
    return sorted(unknown, key=_in_order_of_making)  # a graph's order differs between processes


def _in_order_of_making(variable) -> tuple[list[tuple[str, int]], int]:
    """Compare names by words and numbers: Keras names things dense, dense_1, ... dense_10.

    Two optimizers of Keras 3.13 have the same name: then the number that TensorFlow gives to each
    variable as it is made tells theirs apart.
    """
    words = re.findall(r"([^_/]+)(?:_(\d+)(?![^_/]))?", variable.name.partition(":")[0])
    part = getattr(variable, "values", (variable,))[0]
    number = int(part._unique_id.rpartition("_")[2])
    return [(word, int(count or 0)) for word, count in words], number


def _container(variable):
    inside = getattr(variable, "_distributed_container", None)
    return (inside() if inside else None) or variable


class Place:
    """The place of a run in its `tf.data` pipeline; `InMemory` needs none.

    Two states of the iterator are kept: as it is now, and as it was at the start of its pass. The
    first alone loses how the next pass is shuffled once all elements have entered the shuffle.

    Args:
        loop: The inner loop.
    """

    def __init__(self, loop):
        self.loop = loop
        self.start = tempfile.TemporaryDirectory()
        self.obstacles = _random_operations(loop)
        if loop.iterator is not None:
            try:
                self.begin()
            except (tf.errors.FailedPreconditionError, ValueError) as error:
                line = re.sub(r".*}} *| *\[Op:.*", "", str(error).strip().partition("\n")[0])
                self.obstacles.append(f"in the data, {line}")
        if self.obstacles:
            reasons = "; ".join(self.obstacles)
            print(f"a resume will begin at an epoch, not to the bit: {reasons}", flush=True)

    @property
    def can_be_kept(self) -> bool:
        """Whether a run can go on in the middle of an epoch."""
        return not self.obstacles

    def close(self) -> None:
        """Remove what was noted."""
        self.start.cleanup()

    def begin(self) -> None:
        """Note the start of a pass."""
        if self.loop.iterator is not None and self.can_be_kept:
            tf.train.Checkpoint(iterator=self.loop.iterator).write(f"{self.start.name}/start")

    def save(self, folder: Path) -> None:
        """Write the place into a folder."""
        if self.loop.iterator is not None and self.can_be_kept:
            shutil.copytree(self.start.name, folder / "data")
            tf.train.Checkpoint(iterator=self.loop.iterator).write(str(folder / "data" / "now"))

    def restore(self, folder: Path) -> None:
        """Go to the place that was written into a folder."""
        if self.loop.iterator is None or not self.can_be_kept:
            return
        state = tf.train.Checkpoint(iterator=self.loop.iterator)
        state.read(str(folder / "data" / "now")).assert_consumed()
        shutil.copytree(folder / "data", self.start.name, dirs_exist_ok=True)
        self.loop.last_start = f"{self.start.name}/start"


def _random_operations(loop) -> list[str]:
    if loop.model.run_eagerly:
        return []
    graph = loop.graph().graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    names = sorted({n.op for n in nodes if RANDOM.match(n.op)})
    return [f"{name} in the model keeps its own state" for name in names]
