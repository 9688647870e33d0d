"""Who works together: the processes of a job on several machines, from TF_CONFIG or from SLURM.

TF_CONFIG is a JSON text that each process has in its environment; `index` is its own number:

    {"cluster": {"worker": ["host1:12345", "host2:12345"]},
     "task": {"type": "worker", "index": 0}}

The first worker is the chief: it alone writes files. This module imports no TensorFlow.
"""

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tfcourse.slurm import read_slurm

SECONDS_TO_MEET = 600.0
SECONDS_OF_A_MESSAGE = 5.0
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Cluster:
    """The addresses `host:port` of all workers, the chief first, and this process' own number."""

    addresses: tuple[str, ...]
    index: int

    def tf_config(self) -> str:
        """Return the text of TF_CONFIG."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": self.addresses}, "task": task})


def read_cluster(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Return the cluster that TF_CONFIG, else SLURM, describes; `None` if neither is there.

    Raises:
        ValueError: If what is there does not describe a cluster.
    """
    if text := environment.get("TF_CONFIG"):
        return _from_tf_config(text)
    found = read_slurm(environment)
    return found and Cluster(*found)


def _from_tf_config(text: str) -> Cluster:
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        chiefs = jobs.get("chief", [])
        addresses = (*chiefs, *jobs.get("worker", []))
        index = {"chief": 0, "worker": len(chiefs)}[task["type"]] + int(task["index"])
        right = 0 <= index < len(addresses)
        right = right and all(re.fullmatch(r".+:\d+", address) for address in addresses)
    except (ValueError, TypeError, KeyError, AttributeError):
        right = False
    if not right:
        raise ValueError(
            "TF_CONFIG must be a JSON text with cluster.worker, a list of host:port, and with "
            f"task.type and task.index of this process, got {text!r}"
        )
    return Cluster(addresses, index)


def meet(cluster: Cluster, seconds: float = SECONDS_TO_MEET) -> None:
    """Wait until all workers are there.

    TensorFlow itself waits for a missing worker for ever, and cannot be interrupted.

    Args:
        cluster: Who is to come.
        seconds: How long to wait.

    Raises:
        ValueError: If they are not all there in time, or the chief's port is taken.
    """
    if len(cluster.addresses) == 1:
        return
    deadline = time.monotonic() + seconds
    absent = _gather(cluster, deadline) if cluster.index == 0 else _call(cluster, deadline)
    if absent:
        raise ValueError(
            f"worker {', '.join(map(str, absent))} of the {len(cluster.addresses)} in the cluster "
            f"did not come within {seconds:g} s"
        )


def _gather(cluster: Cluster, deadline: float) -> list[int]:
    """Wait, as the chief, for a call of each other worker and release them all at once."""
    host, port = _split(cluster.addresses[0])
    absent = set(range(1, len(cluster.addresses)))
    try:
        server = socket.create_server((host if host in LOOPBACK else "", port))
    except OSError as error:
        raise ValueError(f"the chief's port {port} cannot be used: {error.strerror}") from None
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        callers = []
        while absent and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(OSError, ValueError):  # too late, or no worker of ours
                callers.append(stack.enter_context(server.accept()[0]))
                absent.discard(int(_receive(callers[-1], SECONDS_OF_A_MESSAGE)))
        for caller in callers:
            with contextlib.suppress(OSError):  # one that called twice, or a stranger
                caller.sendall(b"wait" if absent else b"go")
    return sorted(absent)


def _call(cluster: Cluster, deadline: float) -> list[int]:
    """Call the chief until it answers that all are there."""
    address = _split(cluster.addresses[0])
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, min(left, SECONDS_OF_A_MESSAGE)) as chief:
                chief.sendall(str(cluster.index).encode())
                if _receive(chief, deadline - time.monotonic()) == "go":
                    return []
        except (OSError, ValueError):  # not there yet, or gone again
            time.sleep(0.1)
    return [0]


def _receive(connection: socket.socket, seconds: float) -> str:
    connection.settimeout(max(seconds, 0.01))
    return connection.recv(16).decode()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
