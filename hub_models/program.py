"""One meta graph of a SavedModel as a program: what runs what.

A `Place` is a node of the main graph, `("", node)`, or a whole library function, `(function, "")`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, TensorInfo

Place = tuple[str, str]

# The signature that the loader runs with the assets' own files in place of the graph's constants.
_INITIALIZER = "__saved_model_init_op"


class Program:
    """What a meta graph can run, read from its proto and never executed.

    Attributes:
        object_based: Whether the loader runs functions and objects, and never the main graph.
        functions: The library's functions by name.
        callers: For each function, the nodes that name it, each with its scope.
        exposed: Functions of the loaded object, with the ids bound to their last arguments.
        hidden: Functions that TensorFlow may run although no node names them.
        saving: Places that the saver's save tensor runs.
        restoring: Places that the saver's restore operation runs.
        open: Places that anything but the saver may run.
        without_assets: Main-graph places that run with the constants which the graph itself holds.
    """

    def __init__(self, meta_graph: MetaGraphDef, object_based: bool):
        self.meta_graph = meta_graph
        self.object_based = object_based
        library = meta_graph.graph_def.library.function
        self.functions = {function.signature.name: function for function in library}
        self.callers: dict[str, list[tuple[str, NodeDef]]] = defaultdict(list)
        self._uses: dict[Place, set[Place]] = defaultdict(set)
        for scope, node in self.nodes():
            for name in called_functions(node):
                self._uses[place(scope, node)].add((name, ""))
                self.callers[name].append((scope, node))
            if not scope:
                self._uses[place(scope, node)].update(map(_main_place, node.input))
        self.exposed = self._exposed_functions()
        self.hidden = self._hidden_functions()
        saver = meta_graph.saver_def
        self.saving = self._reach([_main_place(saver.save_tensor_name)])
        self.restoring = self._reach([_main_place(saver.restore_op_name)])
        nodes = {("", node.name) for node in meta_graph.graph_def.node}
        offered = {(name, "") for name in self.hidden | set(self.exposed)}
        outside = (nodes - self.saving - self.restoring) | offered | set(self._named_nodes())
        self.open = self._reach(outside)
        signatures = meta_graph.signature_def.items()
        ordinary = [signature for key, signature in signatures if key != _INITIALIZER]
        self.without_assets = self._reach(_signature_places(ordinary))
        self.without_assets |= self.saving | self.restoring

    def nodes(self) -> Iterator[tuple[str, NodeDef]]:
        """Give every node with its scope: the name of its function, or `""` in the main graph."""
        for node in self.meta_graph.graph_def.node:
            yield "", node
        for function in self.meta_graph.graph_def.library.function:
            for node in function.node_def:
                yield function.signature.name, node

    def _reach(self, roots: Iterable[Place]) -> set[Place]:
        found, waiting = set(), list(roots)
        while waiting:
            found.add(current := waiting.pop())
            waiting.extend(self._uses.get(current, set()) - found)
        return found

    def _exposed_functions(self) -> dict[str, list[int]]:
        objects = self.meta_graph.object_graph_def
        exposed = {name: list(f.bound_inputs) for name, f in objects.concrete_functions.items()}
        for node in objects.nodes:
            for name in (
                *node.function.concrete_functions,
                node.bare_concrete_function.concrete_function_name,
                node.captured_tensor.concrete_function,
            ):
                exposed.setdefault(name, [])
        return exposed

    def _hidden_functions(self) -> set[str]:
        library = self.meta_graph.graph_def.library
        hidden = {gradient.gradient_func for gradient in library.gradient}
        hidden |= {gradient.gradient_func for gradient in library.registered_gradients}
        for name, function in self.functions.items():
            # Graph optimization may swap functions that say they implement the same thing.
            if "api_implements" in function.attr:
                hidden.add(name)
            hidden |= {attr.s.decode(errors="replace") for attr in function.attr.values()}
        return hidden & set(self.functions)

    def _named_nodes(self) -> Iterator[Place]:
        yield from _signature_places(self.meta_graph.signature_def.values())
        for key, collection in self.meta_graph.collection_def.items():
            yield from map(_main_place, collection.node_list.value)
            # The loader of TensorFlow 1 models runs the initializers of the local variables.
            for packed in collection.bytes_list.value if key != "savers" else ():
                yield from map(_main_place, _names_in_variable(packed))


def place(scope: str, node: NodeDef) -> Place:
    """Return the place of a node: itself in the main graph, else its function."""
    return (scope, "") if scope else ("", node.name)


def called_functions(node: NodeDef) -> list[str]:
    """Return the names that a node may call: its operation, and the functions in its attributes."""
    return [node.op, *(name for attr in node.attr.values() for name in _functions_in(attr))]


def _functions_in(attr: AttrValue) -> Iterator[str]:
    kind = attr.WhichOneof("value")
    for function in [attr.func] if kind == "func" else attr.list.func if kind == "list" else ():
        yield function.name
        for inner in function.attr.values():
            yield from _functions_in(inner)


def node_name(reference: str) -> str:
    """Return the node's name in the name of a tensor or in an entry of `NodeDef.input`."""
    return reference.removeprefix("^").partition(":")[0]


def _main_place(reference: str) -> Place:
    return "", node_name(reference)


def _signature_places(signatures: Iterable) -> Iterator[Place]:
    for signature in signatures:
        for info in (*signature.inputs.values(), *signature.outputs.values()):
            yield from map(_main_place, _tensor_names(info))


def _tensor_names(info: TensorInfo) -> list[str]:
    sparse = info.coo_sparse
    names = [info.name, sparse.indices_tensor_name, sparse.values_tensor_name]
    inner = [name for part in info.composite_tensor.components for name in _tensor_names(part)]
    return [*names, sparse.dense_shape_tensor_name, *inner]


def _names_in_variable(packed: bytes) -> tuple[str, ...]:
    try:
        variable = VariableDef.FromString(packed)
    except DecodeError:
        return ()
    names = variable.variable_name, variable.initializer_name, variable.snapshot_name
    return (*names, variable.initial_value_name)
