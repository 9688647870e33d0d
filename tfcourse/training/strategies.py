"""Strategies by name: where the replicas of a model live (tf.distribute).

A strategy is chosen before the model is built, because the weights are made in its scope:

    with training.strategy("auto").scope():
        model = build_lenet(num_classes=10)
        model.compile(...)
"""

import functools
import glob
import importlib.util
import os

import tensorflow as tf

from tfcourse.cluster import meet, read_cluster

NAMES = ("auto", "cpu", "cpu:N", "gpu", "mirrored", "multi-worker", "tpu")
MAX_CPU_DEVICES = 64
TPU_VARIABLES = ("TPU_NAME", "COLAB_TPU_ADDR", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES")
TPU_DEVICES = ("/dev/accel*", "/dev/vfio/[0-9]*")


def strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Return the strategy of this name.

    Args:
        name: `auto` takes a TPU, else the GPUs, else the CPU, and prints which and why; `cpu` is
            one replica; `cpu:N` is N replicas on N logical CPU devices, to rehearse several
            replicas on any machine; `gpu` is one replica on the first GPU; `mirrored` is one on
            each GPU; `multi-worker` is one on each GPU, else the CPU, of every process that
            `TF_CONFIG` lists or SLURM started; `tpu` is one replica on each TPU core.

    Returns:
        The strategy, in whose `scope()` the model is built and compiled.

    Raises:
        ValueError: If there is no such name, or the hardware is not there.
    """
    if name == "auto":
        return _auto()
    kind, colon, count = name.partition(":")
    if kind == "cpu":
        return _cpu(count if colon else "1")
    makers = {"gpu": _gpu, "mirrored": _mirrored, "multi-worker": _multi_worker, "tpu": _tpu}
    if name not in makers:
        raise ValueError(f"strategy must be one of {', '.join(NAMES)}, got {name!r}")
    return makers[name]()


def _auto() -> tf.distribute.Strategy:
    reasons = []
    no_tpu = _no_tpu_software() or _no_tpu_device()
    if no_tpu is None:
        try:
            return _chosen("tpu", ["a TPU was found"], _tpu())
        except ValueError as error:
            no_tpu = str(error)
    reasons.append(f"no TPU: {no_tpu}")
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus > 1:
        return _chosen("mirrored", [*reasons, f"{gpus} GPUs found"], _mirrored())
    if gpus == 1:
        return _chosen("gpu", [*reasons, "1 GPU found"], _gpu())
    return _chosen("cpu", [*reasons, "no GPU found"], _cpu("1"))


def _chosen(name: str, reasons: list[str], chosen: tf.distribute.Strategy):
    print(f"strategy: {name} ({'; '.join(reasons)})")
    return chosen


def _cpu(count: str) -> tf.distribute.Strategy:
    replicas = int(count) if count.isdecimal() else 0
    if not 1 <= replicas <= MAX_CPU_DEVICES:
        raise ValueError(f"N of strategy 'cpu:N' must be 1 to {MAX_CPU_DEVICES}, got {count!r}")
    if replicas == 1:
        return tf.distribute.OneDeviceStrategy("/cpu:0")
    _split_cpu(replicas)
    devices = [f"/cpu:{i}" for i in range(replicas)]
    # Named here because the default warns about devices without NCCL.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def _split_cpu(replicas: int) -> None:
    """Give the CPU at least this many logical devices; only possible before TensorFlow starts."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    present = len(tf.config.get_logical_device_configuration(cpu) or [None])
    if present >= replicas:
        return
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    try:
        tf.config.set_logical_device_configuration(cpu, devices)
    except RuntimeError as error:
        raise ValueError(
            f"strategy 'cpu:{replicas}' must be chosen before TensorFlow is used: "
            f"it has already started with {present} CPU device(s)"
        ) from error


def _gpu() -> tf.distribute.Strategy:
    _require_gpu("gpu")
    return tf.distribute.OneDeviceStrategy("/gpu:0")


def _mirrored() -> tf.distribute.Strategy:
    _require_gpu("mirrored")
    return tf.distribute.MirroredStrategy()


def _require_gpu(name: str) -> None:
    if not tf.config.list_physical_devices("GPU"):
        raise ValueError(f"strategy {name!r} needs a GPU, and TensorFlow finds none")


def _multi_worker() -> tf.distribute.Strategy:
    cluster = read_cluster()
    if cluster is None:
        raise ValueError(
            "strategy 'multi-worker' needs TF_CONFIG, a JSON text that lists cluster.worker, or "
            "SLURM's variables: start it with srun, or rehearse it with `tfcourse run --workers N`"
        )
    meet(cluster)
    os.environ.setdefault("TF_CONFIG", cluster.tf_config())
    implementation = tf.distribute.experimental.CommunicationImplementation
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=implementation.AUTO if on_gpu else implementation.RING
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(
            f"strategy 'multi-worker' failed for {len(cluster.addresses)} worker(s): "
            f"{_first_line(error)}"
        ) from error


def _tpu() -> tf.distribute.Strategy:
    if missing := _no_tpu_software():
        raise ValueError(f"strategy 'tpu' needs a TPU: {missing}")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=os.environ.get("TPU_NAME", "local")
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise ValueError(f"strategy 'tpu' needs a TPU: {_first_line(error)}") from error


def _no_tpu_software() -> str | None:
    """Say what is missing; asks no device, since that would start TensorFlow or wait for a TPU."""
    if any(importlib.util.find_spec(name) for name in ("libtpu", "tensorflow_tpu")):
        return None
    return "tensorflow-tpu is not installed"


def _no_tpu_device() -> str | None:
    named = any(os.environ.get(name) for name in TPU_VARIABLES)
    if named or any(glob.glob(pattern) for pattern in TPU_DEVICES):
        return None
    return "libtpu is installed, but this machine has no TPU device"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether this process writes the files: of several workers only the first does."""
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return not several or strategy.extended.should_checkpoint


def sum_over_workers(strategy: tf.distribute.Strategy, value: float) -> float:
    """Add a number up over the processes of a strategy.

    All of them must call this at the same place: it is how they agree, or wait for each other.

    Args:
        strategy: Any strategy; one that has a single process gives its own number back.
        value: This process' number.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return float(value)
    total = _summing(strategy)(tf.constant(value, tf.float32))
    return float(total) / len(strategy.extended.worker_devices)


@functools.cache
def _summing(strategy: tf.distribute.Strategy) -> tf.types.experimental.PolymorphicFunction:
    def add(value):
        # A tensor from outside has no device, which a reduction needs.
        parts = strategy.run(lambda: tf.identity(value))
        return strategy.reduce("SUM", parts, axis=None)

    return tf.function(add, autograph=False)
