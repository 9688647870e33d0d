"""A `.keras` file names a SavedModel: which ones it gets, and which it does not."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import savedmodels
import tensorflow as tf

import hub_models

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def saved(tmp_path):
    """A trained model, its file, and the folder of its SavedModel."""
    folder = savedmodels.write_reusable(tmp_path / "reusable")
    layer = hub_models.load(folder, trainable="hidden|output")
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(X, np.ones((6, 2)), verbose=0)
    model.save(tmp_path / "model.keras")
    return model, tmp_path / "model.keras", folder


def in_another_process(code):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def edit_config(path, change):
    """Rewrite the configuration of the Hub layer in a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(next(x["config"] for x in config["config"]["layers"] if x["class_name"] == "HubLayer"))
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_another_process_restores_it_to_the_bit(saved, tmp_path):
    model, path, _ = saved
    np.save(tmp_path / "x.npy", X)
    code = f"""
import hub_models, keras, numpy as np
model = keras.models.load_model({str(path)!r})
np.save({str(tmp_path / "y.npy")!r}, model(np.load({str(tmp_path / "x.npy")!r})))
print(len(model.trainable_variables))
"""
    done = in_another_process(code)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.split() == ["4"]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model(X))


def test_a_catalogue_name_is_recorded_and_restored(tmp_path):
    try:
        layer = hub_models.load("basic-pitch")
    except OSError as error:
        pytest.skip(f"no package registry: {error}")
    inputs = keras.Input((43844, 1))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    assert layer.digest == hub_models.CATALOGUE["basic-pitch"].digest
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.layers[1].handle == "basic-pitch"
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(
        FileNotFoundError, match=r"'basic-pitch' is not in the cache; hub_models\.load"
    ):
        keras.models.load_model(tmp_path / "model.keras")
    assert not (tmp_path / "cache" / "hub").exists() or not any((tmp_path / "cache/hub").iterdir())


def test_a_swapped_handle_is_refused(saved, tmp_path):
    _, path, _ = saved
    other = savedmodels.write_plain_module(tmp_path / "other")
    digest = hub_models.resolve(other).digest
    edit_config(path, lambda config: config.update(handle=str(other), digest=digest))
    with pytest.raises(ValueError, match="which you never loaded yourself"):
        keras.models.load_model(path)
    edit_config(path, lambda config: config.update(digest="0" * 64))
    hub_models.load(other)
    with pytest.raises(ValueError, match="not the one that the model was saved with"):
        keras.models.load_model(path)


def test_no_spelling_of_a_path_gets_round_the_notes(saved, tmp_path, monkeypatch):
    _, path, _ = saved
    other = savedmodels.write_plain_module(tmp_path / "other")
    digest = hub_models.resolve(other).digest
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for spelling in ("~/other", "other", "./other", str(tmp_path / "reusable/../other")):
        edit_config(path, lambda config, h=spelling: config.update(handle=h, digest=digest))
        with pytest.raises(ValueError, match="which you never loaded yourself"):
            keras.models.load_model(path)


def test_a_file_without_a_digest_is_refused(saved):
    _, path, _ = saved
    edit_config(path, lambda config: config.update(digest=None))
    with pytest.raises(ValueError, match="not the one that the model was saved with"):
        keras.models.load_model(path)


def test_a_changed_saved_model_is_refused(saved):
    _, path, folder = saved
    shutil.rmtree(folder)
    savedmodels.write_plain_module(folder)
    with pytest.raises(ValueError, match="not the one that the model was saved with"):
        keras.models.load_model(path)


def test_a_moved_folder_is_named_and_can_be_pointed_to(saved, tmp_path):
    model, path, folder = saved
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=rf"'{folder}' is gone .*load_model\(path, handle="):
        keras.models.load_model(path)
    again = hub_models.load_model(path, handle=moved)
    np.testing.assert_array_equal(again(X), model(X))
    again.save(path)
    np.testing.assert_array_equal(keras.models.load_model(path)(X), model(X))
    shutil.rmtree(moved)
    savedmodels.write_plain_module(moved)
    with pytest.raises(ValueError, match="not the one that the model was saved with"):
        hub_models.load_model(path, handle=moved)


def test_a_file_cannot_switch_the_audit_off(saved, tmp_path):
    _, path, _ = saved
    target = tmp_path / "written"
    evil = savedmodels.write_evil_init(tmp_path / "evil", target)
    with pytest.raises(ValueError, match="WriteFile"):
        hub_models.load(evil)
    digest = hub_models.resolve(evil).digest
    changes = {"handle": str(evil), "digest": digest, "allow_unsafe": True, "trainable": False}
    edit_config(path, lambda config: config.update(changes))
    with pytest.raises(ValueError, match="never loaded yourself"):
        keras.models.load_model(path)
    with pytest.raises(ValueError, match="WriteFile"):
        hub_models.load_model(path, handle=evil)
    assert not target.exists()
    hub_models.load(evil, allow_unsafe=True)
    assert target.exists()


def test_a_refused_model_is_not_noted_as_known(saved, tmp_path, cache):
    evil = savedmodels.write_evil_init(tmp_path / "evil", tmp_path / "written")
    before = sorted(cache.rglob("*"))
    with pytest.raises(ValueError, match="WriteFile"):
        hub_models.load(evil)
    assert sorted(cache.rglob("*")) == before


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*nope.keras"):
        hub_models.load_model(tmp_path / "nope.keras")


def test_export_stores_each_weight_once_and_trains_again(tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, kernel_regularizer=keras.regularizers.L2(0.1)),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(2),
        ]
    )
    model.compile("adam", "mse")
    hub_models.export(model, tmp_path / "exported")
    names = [n for n, _ in tf.train.list_variables(str(tmp_path / "exported/variables/variables"))]
    assert len([n for n in names if "VARIABLE_VALUE" in n]) == len(model.variables)
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(loaded(X), model(X), atol=1e-6)
    np.testing.assert_allclose(
        loaded.signatures["serving_default"](tf.constant(X))["output_0"], model(X), atol=1e-6
    )
    assert float(loaded.regularization_losses[0]()) == pytest.approx(float(model.losses[0]))
    assert not np.array_equal(loaded(X, training=True), loaded(X, training=True))  # dropout
    again = hub_models.load(tmp_path / "exported", trainable=True)
    assert len(again.trainable_weights) == len(model.trainable_weights)
    assert tuple(again.input_spec_of_one.shape) == (None, 4)


def test_export_keeps_what_was_there_when_it_fails(tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="holds something else than a SavedModel"):
        hub_models.export(model, folder)
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]
    with pytest.raises(ValueError, match="needs a built functional or sequential model"):
        hub_models.export(keras.Sequential([keras.layers.Dense(2)]), tmp_path / "unbuilt")
    assert not (tmp_path / "unbuilt").exists()
