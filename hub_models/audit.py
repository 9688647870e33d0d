"""Read a SavedModel as a program, without running it, and hold it against what is allowed.

A SavedModel can read and write files, also while it is being loaded. A list of forbidden operations
leaks; so `allowed_operations.txt` lists what may occur, and everything else is refused by name.
"""

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry

from hub_models.file_names import FileNames, asset_files
from hub_models.program import Program, place

_FORMATS = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
# The position of the file name among the inputs of the operations that read files.
_FILE_NAME = {"look-up tables: from assets": 1, "saver: restore": 0}


@dataclass(frozen=True)
class Audit:
    """What a SavedModel can do.

    Attributes:
        operations: Every operation in its graphs and functions.
        refused: One line for each thing that is not allowed, sorted.
    """

    operations: frozenset[str]
    refused: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is refused."""
        return not self.refused


def audit_folder(folder: str | Path) -> Audit:
    """Read the SavedModel in a folder and name everything in it that is not allowed.

    Allowed are pure computation, variables, look-up tables, control flow, random numbers and the
    operations of tensorflow-text. Operations on checkpoints are allowed inside the saver only, and
    what loading the model runs may only read: the model's own checkpoint and its own assets.

    Args:
        folder: The folder that holds `saved_model.pb` (or `saved_model.pbtxt`).

    Returns:
        All operations and what is refused. The model is neither loaded nor run.

    Raises:
        FileNotFoundError: If there is no SavedModel in the folder.
        ValueError: If the SavedModel can't be parsed or holds no graph.
    """
    folder = Path(folder)
    present = [name for name in _FORMATS if (folder / name).exists()]
    operations, refused = set(), set()
    if len(present) > 1:
        refused.add(f"more than one format of the model: {', '.join(present)}")
    meta_graphs = _read(folder, present).meta_graphs
    for meta_graph in meta_graphs:
        # The very choice of tf.saved_model.load.
        object_based = len(meta_graphs) == 1 and meta_graph.HasField("object_graph_def")
        program = Program(meta_graph, object_based)
        operations |= {node.op for _, node in program.nodes() if node.op not in program.functions}
        refused |= {*_refused_operations(program), *_refused_names(program)}
    return Audit(frozenset(operations), tuple(sorted(refused)))


@functools.cache
def allowed_operations() -> dict[str, str]:
    """Return the allowed operations, each with the section of the list that it stands in."""
    allowed, section = {}, ""
    for line in Path(__file__).with_name("allowed_operations.txt").read_text().splitlines():
        if line.startswith("# "):
            section = line.removeprefix("# ")
        else:
            allowed |= dict.fromkeys(line.split(), section)
    return allowed


def _read(folder: Path, present: list[str]) -> SavedModel:
    # The loader of TensorFlow's Python does not read the chunked format.
    if not set(present) & set(_FORMATS[:2]):
        raise FileNotFoundError(f"a SavedModel folder must hold saved_model.pb, got {folder}")
    try:
        # The parser that tf.saved_model.load itself uses.
        saved_model = tf.__internal__.saved_model.parse_saved_model(str(folder))
    except (OSError, UnicodeDecodeError, tf.errors.OpError) as error:
        raise ValueError(f"{present[0]} must be a whole SavedModel, can't read {folder}") from error
    if not saved_model.meta_graphs:
        raise ValueError(f"{present[0]} must hold at least one graph, got none in {folder}")
    return saved_model


def _refused_operations(program: Program) -> Iterator[str]:
    reported = set()
    names = FileNames(program)
    for scope, node in program.nodes():
        section = allowed_operations().get(node.op)
        if node.op in reported or node.op in program.functions:
            continue
        reason = None
        if section is None:
            reason = "not an allowed operation"
        elif section.startswith("saver: ") and not _in_saver(program, section, place(scope, node)):
            reason = "outside the saver"
        elif section in _FILE_NAME and not _reads_own_file(names, section, scope, node):
            reason = "reads a file that is not the model's own"
        if reason:
            reported.add(node.op)
            yield f"{node.op}: {reason} ({_where(scope, node)})"


def _where(scope: str, node: NodeDef) -> str:
    return f"in function {scope}" if scope else f"at node {node.name}"


def _in_saver(program: Program, section: str, where: tuple[str, str]) -> bool:
    if section == "saver: restore":
        return where in program.restoring - program.open
    return where in program.saving - program.open - program.restoring


def _reads_own_file(names: FileNames, section: str, scope: str, node: NodeDef) -> bool:
    position = _FILE_NAME[section]
    if len(node.input) <= position:
        return False
    check = names.are_checkpoint if section == "saver: restore" else names.are_assets
    return check(scope, node.input[position])


def _refused_names(program: Program) -> Iterator[str]:
    graph = program.meta_graph.graph_def
    for name in {function.signature.name for function in graph.library.function}:
        if name in allowed_operations() or op_def_registry.get(name) is not None:
            yield f"{name}: a function with the name of an operation"
    names = Counter((scope, node.name) for scope, node in program.nodes())
    names.update((None, function.signature.name) for function in graph.library.function)
    yield from (f"{name}: two of this name" for (_, name), count in names.items() if count > 1)
    for asset in asset_files(program.meta_graph):
        file = PurePosixPath(asset.filename)
        if file.is_absolute() or ".." in file.parts or "\\" in asset.filename:
            yield f"asset {asset.filename!r}: outside the model's folder"
