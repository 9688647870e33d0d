"""The workers of a job that SLURM started with `srun`, from the variables that it sets.

TensorFlow's own resolver asks `nvidia-smi` even where there is no GPU, sorts the hosts although
SLURM does not, and gives all jobs of a node the same ports.
"""

import re
from collections.abc import Mapping

FIRST_PORT, PORTS = 10_000, 20_000
RANGE = r"\d+(?:-\d+)?"
NAME = rf"(?:[^,\[\]\s]|\[{RANGE}(?:,{RANGE})*\])+"


def read_slurm(environment: Mapping[str, str]) -> tuple[tuple[str, ...], int] | None:
    """Return the addresses `host:port` of all tasks and this one's number, or `None` without SLURM.

    Raises:
        ValueError: If the variables contradict each other.
    """
    if "SLURM_PROCID" not in environment:
        return None
    hosts = expand_hosts(_first(environment, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"))
    tasks = expand_counts(_first(environment, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"))
    count = _number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    if len(hosts) != len(tasks) or sum(tasks) != count:
        raise ValueError(
            f"SLURM_STEP_TASKS_PER_NODE must spread {count} tasks over {len(hosts)} nodes, got "
            f"{tasks}"
        )
    places = [(node, local) for node, most in enumerate(tasks) for local in range(most)]
    index = _number(environment, "SLURM_PROCID")
    here = _number(environment, "SLURM_NODEID"), _number(environment, "SLURM_LOCALID")
    if index >= count or places[index] != here:
        raise ValueError(
            f"SLURM_PROCID must go through the tasks of a node before the next, got {index} for "
            f"task {here[1]} of node {here[0]}: use srun --distribution=block"
        )
    # Two jobs on one node take other ports.
    port = FIRST_PORT + _number(environment, "SLURM_JOB_ID") % PORTS
    return tuple(f"{hosts[node]}:{port + local}" for node, local in places), index


def expand_hosts(text: str) -> list[str]:
    """Return the names in SLURM's short form: `a[01-03,7],b` is a01, a02, a03, a7 and b.

    Raises:
        ValueError: If the text is not of this form.
    """
    if not re.fullmatch(f"{NAME}(,{NAME})*", text):
        raise ValueError(f"SLURM_STEP_NODELIST must be like node[01-03,7], got {text!r}")
    names = []
    for part in re.findall(NAME, text):
        spelled = [""]
        for fixed, ranges in re.findall(r"([^\[]+)|\[(.*?)\]", part):
            ends = [fixed] if fixed else _expand_ranges(ranges)
            spelled = [begin + end for begin in spelled for end in ends]
        names += spelled
    return names


def expand_counts(text: str) -> list[int]:
    """Return the numbers in SLURM's short form: `2(x3),1` is 2, 2, 2 and 1.

    Raises:
        ValueError: If the text is not of this form.
    """
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise ValueError(f"SLURM_STEP_TASKS_PER_NODE must be like 2(x3),1, got {text!r}")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _expand_ranges(text: str) -> list[str]:
    numbers = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += [f"{i:0{len(first)}d}" for i in range(int(first), int(last or first) + 1)]
    return numbers


def _first(environment: Mapping[str, str], *names: str) -> str:
    return next((environment[name] for name in names if name in environment), "")


def _number(environment: Mapping[str, str], *names: str) -> int:
    text = _first(environment, *names)
    if not text.isdecimal():
        raise ValueError(f"{names[0]} must be a whole number, got {text!r}")
    return int(text)
