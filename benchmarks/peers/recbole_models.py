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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=("deepfm", "din"))
    parser.add_argument("clicks", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads the command line as well
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    clicks = Clicks(flags.clicks)
    settings, history = clicks.settings, clicks.of("history")[0][0]
    numbers = [name for (name,) in clicks.of("number")]
    is_din = flags.model == "din"
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        folder = Path("clicks")
        folder.mkdir()
        # RecBole's sequential models know users, items and histories by these names alone.
        names = {"user": "user_id", "item": "item_id"} | (
            {history: "item_id_list"} if is_din else {}
        )
        write_parts(clicks, folder, {"user", "item", history} if is_din else None, names)
        columns = ["user_id", "item_id", names.get(history, history), "label"]
        if is_din:
            write_items(clicks, folder)
        else:
            columns += [f[1] for f in clicks.features if names.get(f[1], f[1]) not in columns]
        config = {
            "data_path": ".",
            "benchmark_filename": list(PARTS.values()),
            "LABEL_FIELD": "label",
            "load_col": {"inter": columns} | ({"item": ["item_id", *FACTS]} if is_din else {}),
            "numerical_features": [] if is_din else numbers,
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
            "seed": flags.seed,
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
        }
        if is_din:
            config["alias_of_item_id"] = ["item_id_list"]
            config["ITEM_LIST_LENGTH_FIELD"] = "item_length"
            config["LIST_SUFFIX"] = "_list"
            config["MAX_ITEM_LIST_LENGTH"] = clicks.of("history")[0][3]
        # In the order of RecBole's quick start, which imports Ray and is therefore left out.
        name = {"deepfm": "DeepFM", "din": "DIN"}[flags.model]
        config = Config(model=name, dataset="clicks", config_dict=config)
        init_seed(flags.seed, True)
        data = create_dataset(config)
        train, validation, test = data_preparation(config, data)
        init_seed(flags.seed, True)
        model = get_model(name)(config, train._dataset)
        trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
        best, _ = trainer.fit(train, validation, verbose=False, show_progress=False)
        found = trainer.evaluate(test, load_best_model=True, show_progress=False)
        reached = {"validation": best, "test": found["auc"]}
        os.chdir("/")
    print(json.dumps({key: float(value) for key, value in reached.items()}), file=ANSWERS)


if __name__ == "__main__":
    main()
