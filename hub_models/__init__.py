"""Pretrained SavedModels as Keras 3 layers: load, audit, train, save, export.

Import this package before `keras.models.load_model` reads a model that holds a Hub layer.
"""

import os

import tfcourse

tfcourse.require_tensorflow()

import keras  # noqa: E402

from hub_models import trust  # noqa: E402
from hub_models.audit import Audit, audit_folder  # noqa: E402
from hub_models.catalogue import ADDRESSES, CATALOGUE, Entry, top_of  # noqa: E402
from hub_models.export import export  # noqa: E402
from hub_models.image import build_image_classifier  # noqa: E402
from hub_models.layer import HubLayer  # noqa: E402
from hub_models.resolve import Resolved, resolve  # noqa: E402

__all__ = [
    "ADDRESSES",
    "CATALOGUE",
    "Audit",
    "Entry",
    "HubLayer",
    "Resolved",
    "audit",
    "build_image_classifier",
    "export",
    "load",
    "load_model",
    "resolve",
    "top_of",
]


def load(
    handle: str | os.PathLike,
    *,
    trainable: bool | str = False,
    signature: str | None = None,
    arguments: dict | None = None,
    allow_unsafe: bool = False,
) -> HubLayer:
    """Load a SavedModel as a Keras layer.

    Call it inside `strategy.scope()` if the layer is to train under a distribution strategy.

    Args:
        handle: A SavedModel's folder, a `.tar.gz` of one, a name in `CATALOGUE`, a handle or
            address at Kaggle Models, or an `https://tfhub.dev/` address.
        trainable: Which variables train: none, all, or those in whose name the regular expression
            is found (`CATALOGUE` names useful ones).
        signature: Name of a signature to run; those cannot be trained. By default the SavedModel
            is called itself, or if it cannot be, its `serve` endpoint or serving signature.
        arguments: More arguments of each call; `{"training": False}` keeps batch normalisation
            and dropout in inference mode while weights train.
        allow_unsafe: Load it even if `audit` refuses operations in it.

    Returns:
        A layer that takes and gives what the SavedModel does.

    Raises:
        ValueError: If the handle names nothing, the audit refuses it, or nothing can train.
        OSError: If it cannot be downloaded or read.
    """
    return HubLayer(
        os.fspath(handle),
        trainable=trainable,
        signature=signature,
        arguments=arguments,
        allow_unsafe=allow_unsafe,
    )


def audit(handle: str | os.PathLike) -> Audit:
    """Read the operations of a SavedModel, without running it.

    Args:
        handle: As for `load`.

    Returns:
        The operations, and those among them that are refused; `clean` if none is.
    """
    return audit_folder(resolve(handle).folder)


def load_model(path: str | os.PathLike, *, handle: str | os.PathLike | None = None) -> keras.Model:
    """Load a `.keras` file that holds a Hub layer, in safe mode.

    Args:
        path: The file.
        handle: Where its SavedModel is now, if not where it was; it has to be the same one. A
            model with several Hub layers cannot be pointed elsewhere.

    Raises:
        ValueError: If the SavedModel is not the one that the file was saved with.
        FileNotFoundError: If the file or the SavedModel is missing.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"no such file: {os.fspath(path)!r}")
    with trust.pointed_at(handle):
        return keras.models.load_model(path)
