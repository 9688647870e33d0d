"""What callbacks remember, so that a resumed run stops or slows down where the whole one does."""

import collections
from collections.abc import Sequence

import keras
import numpy as np

# Attributes of Keras' callbacks that decide what they do next.
ATTRIBUTES = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best", "epochs_since_last_save"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}


def remember(callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, object]:
    """Return the state of each callback that has one, by its class and its place among these.

    A callback of one's own has one if it has the methods `get_state()` and `set_state(state)`.
    """
    states = {}
    for name, callback in _named(callbacks):
        if hasattr(callback, "get_state"):
            states[name] = callback.get_state()
        elif attributes := _attributes(callback):
            states[name] = {a: getattr(callback, a) for a in attributes if hasattr(callback, a)}
    return states


def recall(callbacks: Sequence[keras.callbacks.Callback], states: dict[str, object]) -> None:
    """Give the callbacks back what they had remembered; new ones begin afresh."""
    for name, callback in _named(callbacks):
        if name not in states:
            continue
        if hasattr(callback, "set_state"):
            callback.set_state(states[name])
        else:
            for attribute, value in states[name].items():
                setattr(callback, attribute, value)


def pack(value, arrays: dict[str, np.ndarray] | None = None):
    """Split nested dicts and lists into what JSON takes and the arrays, which get numbers."""
    arrays = {} if arrays is None else arrays
    if isinstance(value, dict):
        return {k: pack(v, arrays)[0] for k, v in value.items()}, arrays
    if isinstance(value, list | tuple):
        return [pack(v, arrays)[0] for v in value], arrays
    if isinstance(value, np.ndarray):
        arrays[f"array{len(arrays)}"] = value
        return {"array": f"array{len(arrays) - 1}"}, arrays
    return (value.item() if isinstance(value, np.generic) else value), arrays


def unpack(value, arrays: dict[str, np.ndarray]):
    """Put together again what `pack` split."""
    if isinstance(value, dict):
        if value.keys() == {"array"}:
            return arrays[value["array"]]
        return {k: unpack(v, arrays) for k, v in value.items()}
    return [unpack(v, arrays) for v in value] if isinstance(value, list) else value


def _named(callbacks):
    seen = collections.Counter()
    for callback in callbacks:
        kind = type(callback).__name__
        seen[kind] += 1
        yield f"{kind} {seen[kind]}", callback


def _attributes(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    return next((a for kind, a in ATTRIBUTES.items() if isinstance(callback, kind)), ())
