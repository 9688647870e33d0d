"""A SavedModel is read as a program: harm is named without being done, and normal models pass."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import savedmodels
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import kernels, op_def_registry

from hub_models.audit import allowed_operations, audit_folder

NORMAL = [
    "write_reusable",
    "write_keras_export",
    "write_keras_saved",
    "write_keras_sequences",
    "write_keras_text",
    "write_plain_module",
    "write_text_tables",
    "write_tf1_hub",
]
LOAD = "import sys, tensorflow as tf; tf.saved_model.load(sys.argv[1])"
# What names and arguments of operations that reach out of the program look like.
SMELL = re.compile(
    r"(?i:file|path|print|save|restore|checkpoint|reader|write|dataset|iterator|summar(?!ize)|debug|rpc"
    r"|send|recv|pyfunc|queue|dump|snapshot|collective|mlir|address|server|remote|descriptor"
    r"|socket|url|stage|session|deadline|timestamp|sleep|vocab|memoryregion|barrier|batchfunction"
    r"|configure|import|abort)|(?<!OU)TPU|Xla|Nccl|DTensor"
)
# Pure all the same: tensors in memory, the name of an example in a message, a beam's best paths.
HARMLESS = {
    "CTCBeamSearchDecoder",
    "Fingerprint",
    "LookupTableImport",
    "LookupTableImportV2",
    "ParseSequenceExample",
    "ParseSequenceExampleV2",
    "ParseSingleSequenceExample",
    "RegexReplace",
    "StaticRegexReplace",
    "TensorArrayWrite",
    "TensorArrayWriteV2",
    "TensorArrayWriteV3",
    "VarHandleOp",
}


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Callable[[str], Path]:
    """Write each normal model once."""
    folders = {}

    def write(name: str) -> Path:
        if name not in folders:
            folders[name] = getattr(savedmodels, name)(tmp_path_factory.mktemp("models") / name)
        return folders[name]

    return write


@pytest.fixture
def edited(written, tmp_path) -> Callable[..., tuple[str, ...]]:
    """Change a copy of a normal model with a function, and return what the audit refuses."""

    def edit(name: str, change: Callable[[SavedModel], None]) -> tuple[str, ...]:
        folder = tmp_path / "edited"
        shutil.copytree(written(name), folder)
        model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        change(model)
        (folder / "saved_model.pb").write_bytes(model.SerializeToString())
        return audit_folder(folder).refused

    return edit


def function_with(model: SavedModel, operation: str):
    """Return the function that holds an operation, and the node."""
    for function in model.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            if node.op == operation:
                return function, node
    raise LookupError(operation)


def main_node(model: SavedModel, operation: str):
    """Return the first node of the main graph with an operation."""
    return next(n for n in model.meta_graphs[0].graph_def.node if n.op == operation)


def add_constant(nodes, name: str, text: bytes) -> None:
    """Add a string constant to a graph or to a function."""
    node = nodes.add(name=name, op="Const")
    node.attr["dtype"].type = tf.string.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(text))


def refuses(refused: tuple[str, ...], *beginnings: str) -> bool:
    """Say whether exactly these lines are refused."""
    return len(refused) == len(beginnings) and all(map(str.startswith, refused, beginnings))


@pytest.mark.parametrize("name", NORMAL)
def test_normal_models_are_clean(written, name):
    audit = audit_folder(written(name))
    assert audit.refused == ()
    assert audit.clean
    assert {"SaveV2", "RestoreV2", "MergeV2Checkpoints"} < audit.operations


def test_basic_pitch_is_clean(tmp_path, monkeypatch):
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path))
    sources = pytest.importorskip("tfcourse.data.sources")
    try:
        folder = sources.fetch("basic-pitch")
    except OSError as error:
        pytest.skip(f"no package registry: {error}")
    audit = audit_folder(folder / "basic_pitch/saved_models/icassp_2022/nmp")
    assert audit.clean
    assert "Conv2D" in audit.operations


def test_a_file_written_while_loading_is_refused_and_not_written(tmp_path):
    target = tmp_path / "stolen.txt"
    folder = savedmodels.write_evil_init(tmp_path / "evil", target)
    audit = audit_folder(folder)
    assert refuses(audit.refused, "WriteFile: not an allowed operation (in function ")
    assert not audit.clean
    assert not target.exists()
    subprocess.run([sys.executable, "-c", LOAD, str(folder)], check=True, capture_output=True)
    assert target.read_text() == "written while loading"


def read_file(x):
    return tf.strings.length(tf.io.read_file("/etc/hostname"))


def print_to_file(x):
    tf.print(x, output_stream="file:///dev/null")
    return x


def list_files(x):
    return tf.io.matching_files("/*")


def python(x):
    return tf.py_function(lambda y: y, [x], tf.float32)


def read_dataset(x):
    return tf.data.TextLineDataset("/etc/hostname").reduce(0, lambda count, _: count + 1)


def inside_a_branch(x):
    return tf.cond(x[0] > 0, lambda: tf.io.read_file("/etc/hostname"), lambda: tf.constant(""))


def save(x):
    tf.raw_ops.SaveV2(prefix="/tmp/never", tensor_names=["x"], shape_and_slices=[""], tensors=[x])
    return x


def restore(x):
    names = {"tensor_names": ["x"], "shape_and_slices": [""], "dtypes": [tf.float32]}
    return tf.raw_ops.RestoreV2(prefix="/tmp/never", **names)[0]


@pytest.mark.parametrize(
    ("body", "operation", "reason"),
    [
        (read_file, "ReadFile", "not an allowed operation"),
        (print_to_file, "PrintV2", "not an allowed operation"),
        (list_files, "MatchingFiles", "not an allowed operation"),
        (python, "EagerPyFunc", "not an allowed operation"),
        (read_dataset, "TextLineDataset", "not an allowed operation"),
        (inside_a_branch, "ReadFile", "not an allowed operation"),
        (save, "SaveV2", "outside the saver"),
        (restore, "RestoreV2", "outside the saver"),
    ],
)
def test_operations_that_reach_out_are_named(tmp_path, body, operation, reason):
    module = tf.Module()
    signature = [tf.TensorSpec([2], tf.float32)]
    inner = tf.function(body, input_signature=signature)
    module.__call__ = tf.function(lambda x: inner(x), input_signature=signature)  # noqa: PLW0108
    tf.saved_model.save(module, str(tmp_path / "model"))
    refused = audit_folder(tmp_path / "model").refused
    assert any(line.startswith(f"{operation}: {reason} (in function ") for line in refused)


def test_unknown_operations_are_named(edited):
    def change(model):
        main_node(model, "NoOp").op = "MyVendor>Accelerate"
        function_with(model, "MatMul")[1].op = "MatMu1"

    assert refuses(
        edited("write_plain_module", change),
        "MatMu1: not an allowed operation (in function ",
        "MyVendor>Accelerate: not an allowed operation (at node NoOp)",
    )


@pytest.mark.parametrize("name", ["write_reusable", "write_tf1_hub"])
def test_the_second_graph_is_read_too(edited, name):
    def change(model):
        model.meta_graphs.add().CopyFrom(model.meta_graphs[0])
        model.meta_graphs[-1].graph_def.node.add(name="extra", op="WriteFile")

    assert refuses(edited(name, change), "WriteFile: not an allowed operation (at node extra)")


def test_saving_inside_the_restore_function_is_refused(edited):
    def change(model):
        function, node = function_with(model, "RestoreV2")
        function.node_def.add(name="also", op="SaveV2").input.extend(node.input)

    assert refuses(edited("write_reusable", change), "SaveV2: outside the saver (in function ")


def test_saving_before_restoring_is_refused_in_a_main_graph(edited):
    def change(model):
        restore = model.meta_graphs[0].saver_def.restore_op_name
        node = next(n for n in model.meta_graphs[0].graph_def.node if n.name == restore)
        node.input.append("^" + main_node(model, "SaveV2").name)

    refused = edited("write_tf1_hub", change)
    assert "SaveV2: outside the saver (at node save/SaveV2)" in refused


def test_a_signature_that_ends_in_the_saver_is_refused(edited):
    def change(model):
        graph = model.meta_graphs[0]
        graph.signature_def["serving_default"].outputs["x"].name = graph.saver_def.save_tensor_name

    refused = edited("write_reusable", change)
    assert any(line.startswith("SaveV2: outside the saver") for line in refused)


def expose_as_concrete(model, name):
    model.meta_graphs[0].object_graph_def.concrete_functions[name].bound_inputs.append(0)


def expose_as_object(model, name):
    nodes = model.meta_graphs[0].object_graph_def.nodes
    nodes.add().bare_concrete_function.concrete_function_name = name


def expose_as_gradient(model, name):
    library = model.meta_graphs[0].graph_def.library
    library.registered_gradients.add(gradient_func=name, registered_op_type="CustomGradient-7")


def expose_as_implementation(model, name):
    functions = model.meta_graphs[0].graph_def.library.function
    function = next(f for f in functions if f.signature.name == name)
    function.attr["api_implements"].s = b"same_thing"


def expose_as_branch(model, name):
    node = function_with(model, "MatMul")[0].node_def.add(name="branches", op="Case")
    node.attr["branches"].list.func.add(name=name)


def expose_inside_an_attribute(model, name):
    node = function_with(model, "MatMul")[0].node_def.add(name="call", op="PartitionedCall")
    node.attr["f"].func.attr["inner"].func.name = name


def expose_in_a_collection(model, name):
    graph = model.meta_graphs[0]
    call = next(n for n in graph.graph_def.node if n.attr["f"].func.name == name)
    graph.collection_def["saved_model_main_op"].node_list.value.append(call.name)


def expose_as_initializer_of_a_local_variable(model, name):
    graph = model.meta_graphs[0]
    call = next(n for n in graph.graph_def.node if n.attr["f"].func.name == name)
    variable = VariableDef(variable_name="v:0", initializer_name=call.name)
    graph.collection_def["local_variables"].bytes_list.value.append(variable.SerializeToString())


@pytest.mark.parametrize("operation", ["SaveV2", "RestoreV2"])
@pytest.mark.parametrize(
    "expose",
    [
        expose_as_concrete,
        expose_as_object,
        expose_as_gradient,
        expose_as_implementation,
        expose_as_branch,
        expose_inside_an_attribute,
        expose_in_a_collection,
        expose_as_initializer_of_a_local_variable,
    ],
)
def test_a_function_of_the_saver_that_anything_else_can_run_is_refused(edited, expose, operation):
    def change(model):
        expose(model, function_with(model, operation)[0].signature.name)

    refused = edited("write_reusable", change)
    assert any(line.startswith(f"{operation}: outside the saver (in function ") for line in refused)


def test_saver_operations_that_no_saver_names_are_refused(edited):
    refused = edited("write_tf1_hub", lambda model: model.meta_graphs[0].ClearField("saver_def"))
    assert "RestoreV2: outside the saver (at node save/RestoreV2)" in refused
    assert "SaveV2: outside the saver (at node save/SaveV2)" in refused


def test_restoring_from_another_file_is_refused_in_a_function(edited):
    def change(model):
        function, node = function_with(model, "RestoreV2")
        add_constant(function.node_def, "elsewhere", b"/home/other/model")
        node.input[0] = "elsewhere:output:0"

    assert refuses(
        edited("write_reusable", change), "RestoreV2: reads a file that is not the model's own"
    )


def test_restoring_from_another_file_is_refused_at_the_call(edited):
    def change(model):
        graph = model.meta_graphs[0]
        name = function_with(model, "RestoreV2")[0].signature.name
        call = next(n for n in graph.graph_def.node if n.attr["f"].func.name == name)
        add_constant(graph.graph_def.node, "elsewhere", b"/home/other/model")
        call.input[0] = "elsewhere"

    assert refuses(
        edited("write_reusable", change), "RestoreV2: reads a file that is not the model's own"
    )


def test_restoring_from_another_file_is_refused_in_a_main_graph(edited):
    def change(model):
        add_constant(model.meta_graphs[0].graph_def.node, "elsewhere", b"/home/other/model")
        main_node(model, "RestoreV2").input[0] = "elsewhere"

    assert refuses(
        edited("write_tf1_hub", change), "RestoreV2: reads a file that is not the model's own"
    )


def table_from_a_constant_in_its_function(model):
    function, node = function_with(model, "InitializeTableFromTextFileV2")
    add_constant(function.node_def, "elsewhere", b"/etc/passwd")
    node.input[1] = "elsewhere:output:0"


def table_bound_to_a_constant(model):
    objects = model.meta_graphs[0].object_graph_def
    asset = next(n for n in objects.nodes if n.WhichOneof("kind") == "asset")
    asset.constant.operation = "Const"


def table_from_a_users_argument(model):
    function = function_with(model, "InitializeTableFromTextFileV2")[0]
    objects = model.meta_graphs[0].object_graph_def
    del objects.concrete_functions[function.signature.name].bound_inputs[:]


def call_that_fills_the_table(model):
    name = function_with(model, "InitializeTableFromTextFileV2")[0].signature.name
    nodes = model.meta_graphs[0].graph_def.node
    return next(n for n in nodes if n.attr["f"].func.name == name), name


def table_from_a_constant_at_its_call(model):
    call, _ = call_that_fills_the_table(model)
    add_constant(model.meta_graphs[0].graph_def.node, "elsewhere", b"/etc/passwd")
    call.input[0] = "elsewhere"


def table_from_a_call_that_names_it_twice(model):
    call, name = call_that_fills_the_table(model)
    call.attr["f"].func.attr["inner"].func.name = name


def table_from_a_gradient(model):
    expose_as_gradient(model, call_that_fills_the_table(model)[1])


def table_from_a_loop(model):
    _, name = call_that_fills_the_table(model)
    loop = function_with(model, "ResourceGather")[0].node_def.add()
    loop.name, loop.op = "loop", "While"
    loop.attr["body"].func.name = name


def table_behind_a_long_chain(model):
    function, node = function_with(model, "InitializeTableFromTextFileV2")
    add_constant(function.node_def, "link0", b"/etc/passwd")
    for i in range(1, 2000):
        function.node_def.add(name=f"link{i}", op="Identity").input.append(f"link{i - 1}:output:0")
    node.input[1] = "link1999:output:0"


@pytest.mark.parametrize(
    "change",
    [
        table_behind_a_long_chain,
        table_from_a_constant_in_its_function,
        table_bound_to_a_constant,
        table_from_a_users_argument,
        table_from_a_constant_at_its_call,
        table_from_a_call_that_names_it_twice,
        table_from_a_gradient,
        table_from_a_loop,
    ],
)
def test_a_table_is_filled_from_an_asset_only(edited, change):
    assert refuses(
        edited("write_text_tables", change),
        "InitializeTableFromTextFileV2: reads a file that is not the model's own (in function ",
    )


def test_a_variable_of_a_main_graph_that_is_run_is_no_asset(edited):
    def change(model):
        model.meta_graphs.add().CopyFrom(model.meta_graphs[0])

    assert refuses(
        edited("write_text_tables", change),
        "InitializeTableFromTextFileV2: reads a file that is not the model's own (in function ",
    )


def undeclared_asset(model):
    del model.meta_graphs[0].collection_def["saved_model_assets"]


def asset_that_the_loader_overlooks(model):
    # With this field set, the loader does not read the collection that names the real asset.
    model.meta_graphs[0].asset_file_def.add(filename="words.txt").tensor_info.name = "inputs:0"


def signature_that_fills_the_table(model):
    node = main_node(model, "InitializeTableFromTextFileV2")
    signature = model.meta_graphs[0].signature_def["default"]
    signature.outputs["again"].name = node.name


@pytest.mark.parametrize(
    "change",
    [undeclared_asset, asset_that_the_loader_overlooks, signature_that_fills_the_table],
)
def test_a_table_of_a_main_graph_is_filled_from_an_asset_only(edited, change):
    assert refuses(
        edited("write_tf1_hub", change),
        "InitializeTableFromTextFileV2: reads a file that is not the model's own (at node ",
    )


@pytest.mark.parametrize("file", ["../../secret.txt", "/etc/passwd", "a\\b.txt"])
def test_assets_outside_the_folder_are_refused(edited, file):
    def change(model):
        model.meta_graphs[0].asset_file_def[0].filename = file

    refused = edited("write_text_tables", change)
    assert refused == (f"asset {file!r}: outside the model's folder",)


def test_assets_in_the_collection_of_tensorflow_1_are_read(edited):
    def change(model):
        packed = model.meta_graphs[0].collection_def["saved_model_assets"].any_list.value[0]
        asset = AssetFileDef()
        packed.Unpack(asset)
        asset.filename = "../words.txt"
        packed.Pack(asset)

    assert edited("write_tf1_hub", change) == ("asset '../words.txt': outside the model's folder",)


def test_an_asset_entry_that_is_cut_off_is_one_clear_error(edited):
    def change(model):
        collection = model.meta_graphs[0].collection_def["saved_model_assets"]
        collection.any_list.value[0].value = b"\x0a\xff"

    with pytest.raises(ValueError, match=r"^an asset entry must be whole"):
        edited("write_tf1_hub", change)


@pytest.mark.parametrize("operation", ["Identity", "WriteFile", "CaseFoldUTF8"])
def test_a_function_with_the_name_of_an_operation_is_refused(edited, operation):
    def change(model):
        function = model.meta_graphs[0].graph_def.library.function.add()
        function.signature.name = operation

    refused = edited("write_plain_module", change)
    assert refused == (f"{operation}: a function with the name of an operation",)


def test_two_functions_or_nodes_of_one_name_are_refused(edited):
    def change(model):
        graph = model.meta_graphs[0].graph_def
        graph.library.function.add().CopyFrom(graph.library.function[0])
        graph.node.add(name="NoOp", op="NoOp")

    refused = edited("write_plain_module", change)
    assert "NoOp: two of this name" in refused
    assert any("__inference_" in line and "two of this name" in line for line in refused)


def test_a_call_by_the_name_of_a_function_is_a_call(edited):
    def change(model):
        name = function_with(model, "MatMul")[0].signature.name
        model.meta_graphs[0].graph_def.node.add(name=name, op=name)

    assert edited("write_plain_module", change) == ()


def test_text_format_is_read_and_two_formats_are_refused(written, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(written("write_plain_module"), folder)
    model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    model.meta_graphs[0].graph_def.node.add(name="extra", op="WriteFile")
    (folder / "saved_model.pbtxt").write_text(str(model))
    assert audit_folder(folder).refused == (
        "more than one format of the model: saved_model.pb, saved_model.pbtxt",
    )
    (folder / "saved_model.pb").unlink()
    assert refuses(audit_folder(folder).refused, "WriteFile: not an allowed operation")


def test_folders_without_a_savedmodel_are_one_clear_error(tmp_path):
    rule = "a SavedModel folder must hold saved_model.pb, got "
    with pytest.raises(FileNotFoundError, match=rule + ".*missing$"):
        audit_folder(tmp_path / "missing")
    (tmp_path / "saved_model.cpb").write_bytes(b"chunks")
    with pytest.raises(FileNotFoundError, match=rule):
        audit_folder(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 1000, -1])
def test_truncated_models_are_one_clear_error(written, tmp_path, keep):
    whole = (written("write_plain_module") / "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=r"^saved_model\.pb must .*$") as error:
        audit_folder(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["saved_model.pb", "saved_model.pbtxt"])
def test_garbage_is_one_clear_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe not a model")
    with pytest.raises(ValueError, match=f"^{name} must be a whole SavedModel"):
        audit_folder(tmp_path)


def test_nothing_that_smells_of_the_outside_is_plainly_allowed():
    smelling = {name for name in registered_operations() if SMELL.search(words_of(name))}
    assert smelling > {"ReadFile", "MatchingFiles", "DecodeProtoV2", "ImmutableConst", "DumpTensor"}
    assert smelling > {"FixedUnigramCandidateSampler", "Skipgram", "GenerateVocabRemapping"}
    assert len(smelling) > 500
    guarded = {"saver: save", "saver: restore", "look-up tables: from assets"}
    plain = {name for name, section in allowed_operations().items() if section not in guarded}
    assert smelling & plain == HARMLESS


def test_the_list_names_operations_that_exist_once():
    text = Path(sys.modules["hub_models.audit"].__file__).with_name("allowed_operations.txt")
    names = [n for line in text.read_text().splitlines() if line[:1] != "#" for n in line.split()]
    assert len(names) == len(set(names)) == len(allowed_operations())
    ours = {n for n, section in allowed_operations().items() if section != "tensorflow-text"}
    # TensorFlow 2.20 has no JPEG XL.
    assert ours - registered_operations() <= {"DecodeJxl"}


def registered_operations() -> set[str]:
    """Return the names of the operations of this TensorFlow, also those with kernels only."""
    names = {kernel.op for kernel in kernels.get_all_registered_kernels().kernel}
    names |= set(dir(tf.raw_ops))
    return {name for name in names if op_def_registry.get(name) is not None}


def words_of(name: str) -> str:
    """Return the name of an operation and of its inputs and attributes."""
    definition = op_def_registry.get(name)
    parts = [*definition.input_arg, *definition.attr]
    return " ".join([name, *(part.name.replace("_", "") for part in parts)])
