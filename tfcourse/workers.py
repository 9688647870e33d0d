"""A rehearsal of a job on several machines: N processes on this one, which talk over loopback.

A worker that is killed cannot be replaced alone, since the others wait for it in the middle of a
sum: all are stopped, the same command starts again, and the run goes on from its checkpoint.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfcourse.cluster import Cluster

RESTARTS = 3
SECONDS_TO_SAVE = 30.0
SECONDS_OF_GRACE = 3.0  # in which the others may end by themselves
LINES_SHOWN = 20
PR_SET_PDEATHSIG = 1


def launch(command: Sequence[str], count: int, *, restarts: int = RESTARTS) -> int:
    """Run a command as several workers until all have ended well.

    The output of worker 0 is shown, that of another one if it fails first.

    Args:
        command: The program and its arguments; each worker finds its TF_CONFIG in the environment.
        count: Number of workers.
        restarts: How often the job starts again after a worker was killed by a signal. An error
            of the program itself would only come again.

    Returns:
        The exit status: 0, or that of the worker that failed first; 128 + the signal, if it was
        killed or this process was told to end.

    Raises:
        ValueError: If there is no worker.
    """
    if count < 1:
        raise ValueError(f"workers must be at least 1, got {count}")
    with _signals_interrupt():
        for left in range(restarts, -1, -1):
            try:
                index, status = _run(command, count)
            except _Told as told:
                return 128 + told.args[0]
            if status >= 0:
                return status
            name = signal.Signals(-status).name
            then = f"all start again ({left} more times at most)" if left else "giving up"
            print(f"worker {index} was killed by {name}: {then}", file=sys.stderr, flush=True)
            # The folder of the run is what the restarted job goes on from.
            command = [word for word in command if word != "--fresh"]
    return 128 - status


class _Told(BaseException):
    """This process got a signal to end."""


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    def told(number, frame):
        raise _Told(number)

    before = {n: signal.signal(n, told) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(command: Sequence[str], count: int) -> tuple[int, int]:
    """Run the job once; return which worker failed first and its status, or `(0, 0)`."""
    workers = []
    with tempfile.TemporaryDirectory(prefix="tfcourse-workers-") as logs:
        try:
            for cluster in _clusters(count):
                workers.append(_start(command, cluster, Path(logs)))
            index, status = _first_failure(workers)
            if status > 0:
                _wait(workers, SECONDS_OF_GRACE)
                if index and workers[0].poll() in (None, 0):
                    _show(index, Path(logs))
            return index, status
        except _Told:
            _end(workers, signal.SIGTERM)
            with contextlib.suppress(_Told):  # told twice: no more patience
                _wait(workers, SECONDS_TO_SAVE)
            raise
        finally:
            _end(workers, signal.SIGKILL)
            _wait(workers, SECONDS_OF_GRACE)


def _clusters(count: int) -> list[Cluster]:
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        addresses = tuple(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
    return [Cluster(addresses, index) for index in range(count)]


def _start(command: Sequence[str], cluster: Cluster, logs: Path) -> subprocess.Popen:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = str(max(1, cores // len(cluster.addresses)))
    environment = {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads} | os.environ
    environment |= {"TF_CONFIG": cluster.tf_config(), "PYTHONUNBUFFERED": "1"}
    with open(logs / str(cluster.index), "wb") as log:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log if cluster.index else None,
            stderr=log if cluster.index else None,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - there are no threads here
            # Ctrl-C comes to the launcher alone, which ends its workers in order.
            start_new_session=True,
        )


def _die_with(parent: int):
    """Return what makes a child of this process end with it, even if it is killed (on Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def prepare():
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)

    return prepare


def _first_failure(workers: list[subprocess.Popen]) -> tuple[int, int]:
    """Wait until a worker fails or all have ended well."""
    while True:
        statuses = [_status(worker) for worker in workers]
        failed = [(status, index) for index, status in enumerate(statuses) if status]
        if failed:
            # A signal's status is negative: it comes before the errors of those it left alone.
            status, index = min(failed)
            return index, status
        if None not in statuses:
            return 0, 0
        time.sleep(0.05)


def _status(worker: subprocess.Popen) -> int | None:
    """Return the exit status; of what a signal ended, minus its number, as of Popen."""
    status = worker.poll()
    # A program that tidies up after SIGTERM leaves with 128 + 15, as `training.fit` does.
    told = status is not None and status - 128 in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return 128 - status if told else status


def _wait(workers: list[subprocess.Popen], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(worker.poll() is None for worker in workers):
        time.sleep(0.05)


def _show(index: int, logs: Path) -> None:
    lines = (logs / str(index)).read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines[-LINES_SHOWN:]:
        print(f"worker {index}: {line}", file=sys.stderr, flush=True)


def _end(workers: list[subprocess.Popen], number: signal.Signals) -> None:
    for worker in workers:
        if worker.poll() is None:
            # The whole group: a worker may have started processes of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, number)
