"""RecBole's DeepFM and DIN, trained and stopped by RecBole's own trainer.

    python recbole_models.py MODEL CLICKS.npz --seed 0

Its DeepFM reads every column, the history as one more field with a table of its own. Its DIN knows
the item, its facts and the history alone, as its authors' code does; DIN's activation between the
layers of the attention is the sigmoid, and both its networks have the same sizes.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # RecBole's own checkpoints are pickles
np.float_ = np.float64  # the name that RecBole uses, where NumPy 2 has dropped it
from common import ANSWERS, Clicks  # noqa: E402

PARTS = {"train": "train", "validation": "valid", "test": "test"}
FACTS = ("genre1", "genre2", "genre3")  # of the item: RecBole's DIN reads them with it


def write_table(path, columns):
    """Write RecBole's format: tabs, and the type of each column in the first line."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(row) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def texts(array):
    if array.ndim == 2:
        return [" ".join(str(i) for i in row if i) for row in array]
    return [str(value) for value in array.tolist()]


def write_parts(clicks, folder, only, names):
    for part, name in PARTS.items():
        columns = {}
        for kind, column, *_ in clicks.features:
            if only is None or column in only:
                word = {"category": "token", "number": "float", "history": "token_seq"}[kind]
                columns[f"{names.get(column, column)}:{word}"] = texts(clicks.parts[part][column])
        columns["label:float"] = texts(clicks.parts[part]["label"])
        write_table(folder / f"clicks.{name}.inter", columns)


def write_items(clicks, folder):
    """Write which facts each item has; an item has the same in every row."""
    train = {c: np.concatenate([p[c] for p in clicks.parts.values()]) for c in ("item", *FACTS)}
    items, first = np.unique(train["item"], return_index=True)
    columns = {"item_id:token": texts(items)}
    columns |= {f"{fact}:token": texts(train[fact][first]) for fact in FACTS}
    write_table(folder / "clicks.item", columns)


def write_tables(clicks, folder, is_din):
    """Write what a model reads; return which columns RecBole is to load."""
    history = clicks.of("history")[0][0]
    # RecBole's sequential models know users, items and histories by these names alone.
    names = {"user": "user_id", "item": "item_id"}
    columns = ["user_id", "item_id", history, "label"]
    if is_din:
        names[history] = columns[2] = "item_id_list"
        write_parts(clicks, folder, {"user", "item", history}, names)
        write_items(clicks, folder)
        return {"inter": columns, "item": ["item_id", *FACTS]}
    write_parts(clicks, folder, None, names)
    columns += [f[1] for f in clicks.features if names.get(f[1], f[1]) not in columns]
    return {"inter": columns}


def settings_of(clicks, is_din, columns, seed):
    """Say in RecBole's words how the networks are built and trained."""
    settings = clicks.settings
    of_din = {
        "alias_of_item_id": ["item_id_list"],
        "ITEM_LIST_LENGTH_FIELD": "item_length",
        "LIST_SUFFIX": "_list",
        "MAX_ITEM_LIST_LENGTH": clicks.of("history")[0][3],
    }
    return {
        "data_path": ".",
        "benchmark_filename": list(PARTS.values()),
        "LABEL_FIELD": "label",
        "load_col": columns,
        "numerical_features": [] if is_din else [name for (name,) in clicks.of("number")],
        "normalize_all": False,
        "embedding_size": settings["embedding_dim"],
        "mlp_hidden_size": settings["din_units" if is_din else "hidden_units"],
        "dropout_prob": 0.0,
        "learning_rate": settings["learning_rate"],
        "train_batch_size": settings["batch_size"],
        "train_neg_sample_args": None,
        "epochs": settings["epochs"],
        "stopping_step": settings["patience"],
        "eval_args": {"group_by": None, "order": "TO" if is_din else "RO", "mode": "labeled"},
        "metrics": ["AUC", "LogLoss"],
        "valid_metric": "AUC",
        "seed": seed,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    } | (of_din if is_din else {})


def train(name, settings, seed):
    """Train and test in the order of RecBole's quick start, which imports Ray and is left out."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    config = Config(model=name, dataset="clicks", config_dict=settings)
    init_seed(seed, True)
    parts = data_preparation(config, create_dataset(config))
    init_seed(seed, True)
    model = get_model(name)(config, parts[0]._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    best, _ = trainer.fit(*parts[:2], verbose=False, show_progress=False)
    found = trainer.evaluate(parts[2], load_best_model=True, show_progress=False)
    return {"validation": float(best), "test": float(found["auc"])}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=("deepfm", "din"))
    parser.add_argument("clicks", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads the command line as well
    clicks, is_din = Clicks(flags.clicks), flags.model == "din"
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        folder = Path("clicks")
        folder.mkdir()
        settings = settings_of(clicks, is_din, write_tables(clicks, folder, is_din), flags.seed)
        reached = train("DIN" if is_din else "DeepFM", settings, flags.seed)
        os.chdir("/")
    print(json.dumps(reached), file=ANSWERS)


if __name__ == "__main__":
    main()
