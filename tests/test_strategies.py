"""`training.strategy`: names, logical devices, and clear errors for hardware that is not there."""

import subprocess
import sys

import pytest
import tensorflow as tf

from tfcourse import training
from tfcourse.training import strategies

no_gpu = pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="has a GPU")


@pytest.mark.parametrize(
    ("name", "replicas"), [("cpu", 1), ("cpu:1", 1), ("cpu:2", 2), ("cpu:4", 4)]
)
def test_cpu_strategies_have_as_many_replicas_as_they_say(name, replicas):
    strategy = training.strategy(name)
    assert strategy.num_replicas_in_sync == replicas
    devices = strategy.extended.worker_devices
    assert [device.upper()[-5:] for device in devices] == [f"CPU:{i}" for i in range(replicas)]


@no_gpu
def test_auto_falls_back_to_the_cpu_and_says_why(capsys):
    assert training.strategy().num_replicas_in_sync == 1
    line = capsys.readouterr().out
    assert line.startswith("strategy: cpu (no TPU: ")
    assert line.endswith("; no GPU found)\n")


@pytest.mark.parametrize("name", ["", "CPU", "gpu:2", "cuda"])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(ValueError, match="strategy must be one of auto, cpu, cpu:N, gpu, mirrored"):
        training.strategy(name)


@pytest.mark.parametrize("count", ["0", "-1", "two", "", "65"])
def test_a_bad_number_of_cpu_devices_is_refused(count):
    with pytest.raises(ValueError, match=f"must be 1 to 64, got '{count}'"):
        training.strategy(f"cpu:{count}")


def test_too_many_cpu_devices_for_a_started_tensorflow():
    tf.constant(1)
    with pytest.raises(
        ValueError, match="'cpu:8' must be chosen before TensorFlow is used"
    ) as error:
        training.strategy("cpu:8")
    assert "4 CPU device" in str(error.value)


@no_gpu
@pytest.mark.parametrize("name", ["gpu", "mirrored"])
def test_missing_gpus_are_one_clear_error(name):
    with pytest.raises(ValueError, match=f"strategy '{name}' needs a GPU"):
        training.strategy(name)


def test_multi_worker_needs_a_cluster(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"needs TF_CONFIG, .* or SLURM's variables"):
        training.strategy("multi-worker")


@pytest.mark.parametrize(
    "config",
    [
        *("{", "[]", "{}", '{"cluster": {"worker": ["a:1"]}}'),
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_a_bad_tf_config_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=r"TF_CONFIG must be a JSON text with cluster\.worker"):
        training.strategy("multi-worker")


@pytest.mark.parametrize("name", ["cpu", "cpu:2"])
def test_one_process_is_its_own_chief_and_sum(name):
    strategy = training.strategy(name)
    assert strategies.is_chief(strategy)
    assert strategies.sum_over_workers(strategy, True) == 1.0


def test_looking_for_a_tpu_does_not_start_tensorflow():
    script = """
from tfcourse import training
from tfcourse.training import strategies
try:
    strategies._no_tpu_device()
    training.strategy("tpu")
except ValueError as error:
    print(error)
print(training.strategy("cpu:3").num_replicas_in_sync)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    error, replicas = done.stdout.splitlines()
    assert error.startswith("strategy 'tpu' needs a TPU: ")
    assert replicas == "3"
    assert "Mirrored" not in done.stderr
