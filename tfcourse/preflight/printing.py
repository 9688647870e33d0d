"""The report as a reader sees it: one line for each finding, then the memory of a core."""

from rich.console import Console

from tfcourse import doctor
from tfcourse.preflight.checks import GIB, Report
from tfcourse.preflight.memory import CORES, Memory

LAST = "TPU ends at TensorFlow 2.20: it needs tensorflow-tpu==2.20.0 in place of tensorflow."
MEMORY = (
    "Memory is an estimate; a core has what Google Cloud publishes. Activations are the tensors "
    "that the forward pass makes and the gradient reads, added up from the graph: a TPU's padding "
    "adds to them, XLA's fusion takes from them."
)
HONEST = (
    "XLA for the CPU stood in for the TPU's compiler, and no step was run: to pass is necessary, "
    "not sufficient."
)
# What is installed here, and what a TPU machine can have.
VERSIONS = {
    "python": "3.9 to 3.13",
    "tensorflow": "2.20.0 (tensorflow-tpu)",
    "keras": ">= 3.10",
    "numpy": ">= 2.1",
    "libtpu": "<= 0.0.31",
}
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
LEVELS = tuple(COLOURS)


def say(reports: list[Report], console: Console | None = None) -> int:
    """Print reports.

    Args:
        reports: What `check_file` or `check_recipe` returned.
        console: Where to write; standard output by default.

    Returns:
        The exit status: 0 if all are ready, 1 if not.
    """
    console = console or Console()

    def line(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    for report in reports:
        share = -(-report.batch_size // report.replicas)
        line(
            f"{report.name}: batch {report.batch_size} over {report.replicas} "
            f"replica(s), {share} on a core",
            "bold",
        )
        for finding in sorted(report.findings, key=lambda f: LEVELS.index(f.level)):
            line(f"  {finding}", COLOURS[finding.level])
        if report.memory:
            line(f"  {_memory(report.memory)}")
        line("  ready" if report.ready else "  not ready", "green" if report.ready else "red")
    line("")
    for text in [*_versions(), LAST, MEMORY, HONEST]:
        line(text)
    return int(not all(report.ready for report in reports))


def _memory(memory: Memory) -> str:
    parts = {
        "weights": memory.weights,
        "optimizer": memory.optimizer,
        "gradients": memory.gradients,
        "activations": memory.activations,
    }
    listed = " + ".join(f"{name} {_amount(size)}" for name, size in parts.items())
    sizes = " or ".join(f"{size} GiB ({kind})" for kind, size in CORES.items())
    return f"memory: about {_amount(memory.total)} of {sizes} on a core = {listed}"


def _amount(size: int) -> str:
    for unit, scale in (("GiB", GIB), ("MiB", 2**20)):
        if size >= scale / 10:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 2**10:.1f} KiB"


def _versions() -> list[str]:
    found = doctor.versions()
    lines = [f"{'':12} {'here':12} on a TPU"]
    for name, there in VERSIONS.items():
        lines.append(f"{name:12} {found.get(name) or '-':12} {there}")
    return lines
