"""The graph of a training step, and which layer made each of its operations."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

GRADIENT = "gradient_tape/"


class StepGraph:
    """A step traced into a graph, for one size of batch.

    While it is traced, every layer notes the name scope in which it runs: the operations whose
    names begin so are its own, or their gradients.

    Args:
        model: A model whose variables exist, those of its optimizer and metrics included.
        step: `step(model, batch)`, of which the graph is made.
        batch: The batch as a structure of `tf.TensorSpec`, every dimension known.
    """

    def __init__(self, model: keras.Model, step: Callable, batch: tuple):
        def run(*tensors):
            return step(model, tf.nest.pack_sequence_as(batch, tensors))

        self.model, self.specs = model, tf.nest.flatten(batch)
        # The compiler's text comes only from a function of tensors, not of a structure of them.
        self.function = tf.function(run, jit_compile=True, autograph=False)
        with _noted_scopes(model) as self.scopes:
            concrete = self.function.get_concrete_function(*self.specs)
        self.graph = concrete.graph
        self.definition = self.graph.as_graph_def(add_shapes=True)
        self.library = {f.signature.name: f for f in self.definition.library.function}

    def hlo(self, stage: str) -> str:
        """Return XLA's text: `hlo` only translates, `optimized_hlo` compiles as well."""
        return self.function.experimental_get_compiler_ir(*self.specs)(
            stage=stage, platform_name="CPU"
        )

    def nodes(self) -> Iterator[tuple[tf.compat.v1.NodeDef, tuple[str, ...]]]:
        """Yield every node, those of loops, branches and functions included.

        With it come the names of the nodes that call the function which holds it, and its own.
        """
        yield from self._walk(self.definition.node, ())

    def _walk(self, nodes, callers):
        for node in nodes:
            path = (*callers, node.name)
            yield node, path
            for name in _called(node):
                # A function that calls itself would have no end.
                if name in self.library and len(path) < 50:
                    yield from self._walk(self.library[name].node_def, path)

    def place(self, path: tuple[str, ...]) -> str:
        """Return which layer made the node at this path, in words."""
        chains = (self._chain(name.removeprefix(GRADIENT)) for name in path)
        layers = max(chains, key=len)
        if not layers:
            return f"{self.model.name}, outside its layers"
        return f"layer {'/'.join(x.name for x in layers)!r} ({type(layers[-1]).__name__})"

    def _chain(self, name: str) -> list[keras.layers.Layer]:
        parts = name.split("/")
        prefixes = ("/".join(parts[:n]) for n in range(1, len(parts)))
        layers = [self.scopes[prefix] for prefix in prefixes if prefix in self.scopes]
        return [layer for layer in layers if layer is not self.model]


def _called(node: tf.compat.v1.NodeDef) -> list[str]:
    """Return the names of the functions that a node may call; old graphs name one as operation."""
    values = node.attr.values()
    names = [f.name for v in values for f in ([v.func] if v.HasField("func") else v.list.func)]
    return [node.op, *names]


@contextlib.contextmanager
def _noted_scopes(model: keras.Model) -> Iterator[dict[str, keras.layers.Layer]]:
    scopes = {}

    def noting(layer, call):
        @functools.wraps(call)
        def noted(*args, **kwargs):
            scopes.setdefault(tf.get_current_name_scope(), layer)
            return call(*args, **kwargs)

        return noted

    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers():
            attributes = vars(layer)  # Keras' own setter would track the function as state
            if "call" in attributes:
                stack.callback(attributes.__setitem__, "call", attributes["call"])
            else:
                stack.callback(attributes.pop, "call")
            attributes["call"] = noting(layer, layer.call)
        yield scopes
