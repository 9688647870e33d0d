"""Where the names of the files come from that a SavedModel reads."""

from collections.abc import Iterator

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef, MetaGraphDef

from hub_models.program import Place, Program, called_functions, node_name

# Where a tensor is made: ("tensor", name in the main graph), ("object", id) or ("unknown", scope).
Origin = tuple[str, str | int]

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_PASS_ON = ("Identity", "PlaceholderWithDefault")


def asset_files(meta_graph: MetaGraphDef) -> Iterator[AssetFileDef]:
    """Give the entries of the assets, from the one place in which the loader looks for them.

    Raises:
        ValueError: If an entry can't be parsed.
    """
    collections = meta_graph.collection_def
    if meta_graph.asset_file_def or "saved_model_assets" not in collections:
        yield from meta_graph.asset_file_def
        return
    for packed in collections["saved_model_assets"].any_list.value:
        try:
            yield AssetFileDef.FromString(packed.value)
        except DecodeError as error:
            raise ValueError("an asset entry must be whole, got one that can't be read") from error


class FileNames:
    """Follow the name of a file back to where it is made."""

    def __init__(self, program: Program):
        self._program = program
        self._nodes = {(scope, node.name): node for scope, node in program.nodes()}
        self._checkpoint = _tensor(program.meta_graph.saver_def.filename_tensor_name)
        assets = asset_files(program.meta_graph)
        self._assets = {_tensor(asset.tensor_info.name) for asset in assets}

    def are_assets(self, scope: str, reference: str) -> bool:
        """Say whether a tensor is always the file of an asset.

        Args:
            scope: The function that uses the tensor, or `""` for the main graph.
            reference: The tensor as an entry of `NodeDef.input`.
        """
        return all(map(self._is_asset, self._origins(scope, reference)))

    def are_checkpoint(self, scope: str, reference: str) -> bool:
        """Say whether a tensor is always the one into which the loader puts the checkpoint's name.

        Args:
            scope: The function that uses the tensor, or `""` for the main graph.
            reference: The tensor as an entry of `NodeDef.input`.
        """
        return self._origins(scope, reference) <= {("tensor", self._checkpoint)}

    def _is_asset(self, origin: Origin) -> bool:
        kind, value = origin
        if kind == "object":
            objects = self._program.meta_graph.object_graph_def.nodes
            return 0 <= value < len(objects) and objects[value].WhichOneof("kind") == "asset"
        if kind != "tensor":
            return False
        name = node_name(value)
        if value in self._assets:
            return ("", name) not in self._program.without_assets
        # TensorFlow 2 keeps a copy in variables of the main graph, which its loader never runs.
        copy = self._nodes.get(("", name))
        return self._program.object_based and copy is not None and copy.op == "ReadVariableOp"

    def _origins(self, scope: str, reference: str) -> set[Origin]:
        origins: set[Origin] = set()
        seen: set[Place] = set()
        waiting = [(scope, reference)]
        while waiting:
            current = waiting.pop()
            if current not in seen:
                seen.add(current)
                ends, further = self._step_back(*current)
                origins |= ends
                waiting += further
        return origins

    def _step_back(self, scope: str, reference: str) -> tuple[set[Origin], list[Place]]:
        """Return the origins that are found here, and the tensors to follow further."""
        tensor, name = _tensor(reference), node_name(reference)
        if not scope and tensor in {self._checkpoint, *self._assets}:
            return {("tensor", tensor)}, []
        if scope:
            arguments = [arg.name for arg in self._program.functions[scope].signature.input_arg]
            if name in arguments:
                return self._step_to_callers(scope, arguments.index(name))
        node = self._nodes.get((scope, name))
        if node is not None and node.op in _PASS_ON and node.input:
            return set(), [(scope, node.input[0])]
        return {("unknown", scope) if scope else ("tensor", tensor)}, []

    def _step_to_callers(self, function: str, index: int) -> tuple[set[Origin], list[Place]]:
        program, unknown = self._program, {("unknown", function)}
        arguments = program.functions[function].signature.input_arg
        if function in program.hidden or any(a.number_attr or a.type_list_attr for a in arguments):
            return unknown, []
        origins, further = set(), []
        if function in program.exposed:
            bound = program.exposed[function]
            position = index - (len(arguments) - len(bound))
            origins |= {("object", bound[position])} if position >= 0 else unknown
        for scope, node in program.callers[function]:
            called = node.attr["f"].func.name if node.op in _CALLS else node.op
            direct = called == function and called_functions(node).count(function) == 1
            if direct and index < len(node.input):
                further.append((scope, node.input[index]))
            else:
                origins |= unknown
        return origins, further


def _tensor(reference: str) -> str:
    return reference if ":" in reference else f"{reference}:0"
