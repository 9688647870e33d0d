"""Which part of the project may import which: the house rules, held against the imports."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A part may import itself, the standard library, other packages, `tfcourse` (the root, for the
# check of the backend), and of ours only these.
ALLOWED = {
    "recipes": ("tfcourse", "hub_models"),
    "hub_models": ("tfcourse.vision", "tfcourse.data"),
    "tfcourse.cli": (
        "tfcourse.runs",
        "tfcourse.doctor",
        "tfcourse.preflight",
        "tfcourse.bench",
        "tfcourse.workers",
        "tfcourse.catalogue",
        "tfcourse.flags",
        "tfcourse.summary",
        "tfcourse.recommendation.course",
        "hub_models.image",
    ),
    "tfcourse.catalogue": (),
    "tfcourse.flags": ("tfcourse.catalogue",),
    "tfcourse.summary": ("tfcourse.receptive_field",),
    "tfcourse.receptive_field": (),
    "tfcourse.basics": (),
    "tfcourse.bench": (),
    "tfcourse.preflight": ("tfcourse.training", "tfcourse.doctor"),
    "tfcourse.workers": ("tfcourse.cluster",),
    "tfcourse.cluster": ("tfcourse.slurm",),
    "tfcourse.slurm": (),
    "tfcourse.runs": ("tfcourse.data.cache", "tfcourse.cluster"),
    "tfcourse.doctor": ("tfcourse.data.cache",),
    "tfcourse.plots": ("tfcourse.data.cache",),
    "tfcourse.__main__": ("tfcourse.cli",),
    "tfcourse.vision": ("tfcourse.data.sources", "tfcourse.data.downloads"),
    "tfcourse.recommendation": ("tfcourse.data.features", "tfcourse.data.pipeline"),
    "tfcourse.recommendation.serving": ("tfcourse.data", "tfcourse.recommendation"),
    "tfcourse.recommendation.catalogue": ("tfcourse.data.cache",),
    "tfcourse.recommendation.index": ("tfcourse.recommendation.catalogue",),
    "tfcourse.recommendation.approximate_index": (
        "tfcourse.recommendation.catalogue",
        "tfcourse.recommendation.index",
    ),
    "tfcourse.recommendation.clicks": ("tfcourse.data", "tfcourse.recommendation"),
    "tfcourse.recommendation.click_models": ("tfcourse.recommendation",),
    "tfcourse.recommendation.learning": ("tfcourse.training", "tfcourse.recommendation"),
    "tfcourse.recommendation.titles": ("tfcourse.data.ratings",),
    "tfcourse.recommendation.two_stage": ("tfcourse.data", "tfcourse.recommendation"),
    "tfcourse.recommendation.item2vec": ("tfcourse.sequence.word2vec",),
    "tfcourse.recommendation.graph_embedding": (
        "tfcourse.recommendation.interactions",
        "tfcourse.recommendation.item2vec",
        "tfcourse.sequence.word2vec",
    ),
    "tfcourse.sequence": ("tfcourse.data.text",),
    "tfcourse.training": ("tfcourse.data", "tfcourse.plots", "tfcourse.cluster"),
    "tfcourse.data": (),
    "tfcourse.__init__": (),
}


def modules():
    files = [
        p for part in ("tfcourse", "hub_models", "recipes") for p in (ROOT / part).rglob("*.py")
    ]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in files}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.col_offset) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.col_offset) for alias in node.names)


def within(name, parts):
    return any(name == part or name.startswith(part + ".") for part in parts)


@pytest.mark.parametrize("name", modules())
def test_imports_follow_the_table(name):
    part = max((p for p in ALLOWED if within(name, [p])), key=len)
    allowed = (part.removesuffix(".__init__"), *ALLOWED[part])
    ours = [i for i, _ in imports_of(modules()[name]) if within(i, ("tfcourse", "hub_models"))]
    ours = [i for i in ours if i != "tfcourse"]
    if part == "recipes":
        allowed = ALLOWED[part]
    assert [i for i in ours if not within(i, allowed)] == []


def test_no_recipe_imports_another():
    recipes = {n.removeprefix("recipes.") for n in modules() if n.startswith("recipes.")}
    for name, path in modules().items():
        if name.startswith("recipes."):
            imported = {i.split(".")[0] for i, _ in imports_of(path)}
            assert not imported & (recipes | {"recipes", "tfcourse_recipes"}), name


def test_nothing_but_a_download_imports_tensorflow_hub_or_tf_keras():
    guilty = {
        name
        for name, path in modules().items()
        for imported, _ in imports_of(path)
        if within(imported, ("tensorflow_hub", "tf_keras", "kagglehub"))
    }
    assert guilty == {"hub_models.resolve"}
    places = [c for i, c in imports_of(modules()["hub_models.resolve"]) if i == "tensorflow_hub"]
    assert all(column > 0 for column in places)  # inside a function, when a handle asks for it


@pytest.mark.parametrize(
    "code",
    [
        "import tfcourse",
        "import tfcourse.cli, tfcourse.runs, tfcourse.doctor, tfcourse.workers, tfcourse.bench",
        "import tfcourse.catalogue; tfcourse.catalogue.show_builders()",
    ],
)
def test_tensorflow_is_not_imported(code):
    code += "; import sys; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_hub_models_import_neither_tensorflow_hub_nor_tf_keras():
    code = """
import hub_models, sys
sys.exit(bool({"tensorflow_hub", "tf_keras", "pkg_resources"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("package", ["tfcourse.vision", "tfcourse.training", "hub_models"])
def test_another_backend_is_one_clear_error(package):
    done = subprocess.run(
        [sys.executable, "-c", f"import {package}"],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == "ImportError: KERAS_BACKEND must be 'tensorflow' for tfcourse, got 'jax'"


def test_tensorflow_hub_can_be_imported():
    """Setuptools 82 and later lack what tensorflow-hub 0.16 imports; our dependencies say so."""
    import tomllib

    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert any(n.startswith("setuptools") and n.endswith("<82") for n in needs)
    subprocess.run([sys.executable, "-W", "ignore", "-c", "import tensorflow_hub"], check=True)
