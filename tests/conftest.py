"""Settings that every test shares."""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

# Logical devices stand in for replicas; they must exist before TensorFlow starts.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)


@pytest.fixture
def recipe(tmp_path, monkeypatch, capsys):
    """Run a recipe in this process, in an empty folder; gives status, report and output."""

    def run(name, *flags):
        monkeypatch.chdir(tmp_path)
        path = Path(__file__).parent.parent / f"recipes/{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *flags])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(path), run_name="__main__")
        file = tmp_path / "runs" / name / "report.json"
        report = json.loads(file.read_text()) if file.exists() else None
        return end.value.code, report, capsys.readouterr()

    return run
