"""One of several processes that train together: started by `tests/test_replicas.py`.

    python tests/several_processes.py FOLDER [FEATURE ...]

Every process writes its weights and history into `FOLDER/INDEX.npz` and `FOLDER/INDEX.json`.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tfcourse import training


def main(folder, names):
    strategy = training.strategy("multi-worker")  # before anything else starts TensorFlow
    import parity

    settings = parity.merged(names)
    model, data = parity.build(settings, strategy), parity.data(settings)
    fit = settings.get("fit", {})
    history = training.fit(model, data, parity.EPOCHS, validation_data=data, **fit).history
    figures = training.evaluate(model, data)
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    np.savez(folder / f"{index}.npz", *model.get_weights(), training.predict(model, data))
    (folder / f"{index}.json").write_text(json.dumps([history, figures]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
