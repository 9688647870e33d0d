"""SIGTERM, with which machines are taken away: a run notes it, saves, and leaves."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf

from tfcourse.training.strategies import sum_over_workers


@contextlib.contextmanager
def stop_on_sigterm(
    can_save: object, strategy: tf.distribute.Strategy
) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether SIGTERM has come, to this worker or to another.

    The old handler returns at the end.

    Args:
        can_save: What is false if there is nothing to save: then the process is ended at once.
        strategy: The workers that have to agree.
    """
    if not can_save:
        yield lambda: False
        return
    told = threading.Event()

    def is_told() -> bool:
        return sum_over_workers(strategy, float(told.is_set())) > 0

    if threading.current_thread() is not threading.main_thread():
        yield is_told  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.set())
    try:
        yield is_told
    finally:
        signal.signal(signal.SIGTERM, before)
