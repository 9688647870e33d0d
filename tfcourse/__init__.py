"""A readable, tested course in deep learning on Keras 3 and TensorFlow.

`import tfcourse` imports no TensorFlow (that takes six seconds); its subpackages do.
"""

import importlib.util
import os
import sys

__version__ = "0.1.0"


def require_tensorflow() -> None:
    """Make sure that Keras runs on TensorFlow; every subpackage that needs it calls this first.

    Raises:
        ImportError: If TensorFlow is not installed, or Keras is set to another backend.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "keras" in sys.modules:
        backend = sys.modules["keras"].config.backend()
    if backend != "tensorflow":
        raise ImportError(f"KERAS_BACKEND must be 'tensorflow' for tfcourse, got {backend!r}")
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError("tfcourse needs TensorFlow: pip install tensorflow (TPU: tensorflow-tpu)")
