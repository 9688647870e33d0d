"""The command `tfcourse`, and what every recipe's command line shares.

Importing this module imports no TensorFlow, which takes six seconds: `list` answers at once.
"""

import argparse
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import tfcourse
from tfcourse import catalogue
from tfcourse.catalogue import recipes
from tfcourse.flags import Parser, at_least, positive, read_flags, without_flag

OURS = ("tfcourse", "hub_models", "tfcourse_recipes", "__main__")


def flags(
    doc: str,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
) -> argparse.ArgumentParser:
    """Return a parser with the flags that all recipes share.

    Args:
        doc: The recipe's docstring: the first line is its summary, all of it the help.
        epochs: Default number of epochs. A recipe that trains nothing leaves out these three, and
            gets no `--data-dir` either.
        batch_size: Default number of examples in a step, over all replicas.
        learning_rate: Default learning rate.
    """
    parser = Parser(
        prog=f"tfcourse run {Path(sys.argv[0]).stem}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    for flag, kind, default in (
        ("--epochs", at_least(1), epochs),
        ("--batch-size", at_least(1), batch_size),
        ("--learning-rate", positive, learning_rate),
    ):
        if default is not None:
            add(flag, type=kind, default=default, help=f"default {default}")
    add("--strategy", default="auto", help="auto, cpu, cpu:N, gpu, mirrored, multi-worker or tpu")
    add("--seed", type=at_least(0), default=0, help="of weights, order and augmentation; default 0")
    if epochs is not None:
        add("--data-dir", type=Path, help="your own data instead of the recipe's")
    add("--workdir", type=Path, help="the run's folder; default runs/NAME")
    add("--fresh", action="store_true", help="start over, even if the folder holds a run")
    add("--smoke", action="store_true", help="a tiny run, to see that everything works")
    return parser


def execute(command: Callable[[], int | None]) -> None:
    """Run a command and exit: bad input is one line and status 2, a fault of ours a traceback."""
    try:
        sys.exit(command())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command continues")
    except (ValueError, OSError, ImportError) as error:
        ours = isinstance(error, OSError) or _raised_by_us(error)
        if os.environ.get("TFCOURSE_DEBUG") or not ours:
            raise
        print("tfcourse:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def main() -> None:
    """Entry point of the command `tfcourse`."""
    parser = Parser(
        prog="tfcourse", description="A course in deep learning on Keras 3 and TensorFlow."
    )
    parser.add_argument("--version", action="version", version=f"tfcourse {tfcourse.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    _add_catalogue(commands)

    run = commands.add_parser(
        "run",
        help="run a recipe; its own flags follow its name, and --workers N rehearses N machines",
    )
    run.add_argument("name", metavar="NAME")
    run.add_argument("rest", metavar="...", nargs=argparse.REMAINDER)
    run.set_defaults(command=lambda arguments: _run(arguments.name, arguments.rest))

    predict = commands.add_parser("predict", help="classify your own pictures with a finished run")
    predict.add_argument("folder", metavar="RUN_FOLDER", type=Path)
    predict.add_argument("images", metavar="IMAGE", type=Path, nargs="+")
    predict.set_defaults(command=lambda arguments: _predict(arguments.folder, arguments.images))

    doctor = commands.add_parser(
        "doctor", help="versions, devices, caches, and what would go wrong"
    )
    doctor.set_defaults(command=lambda _: _doctor())

    _add_preflight(commands)
    _add_bench(commands)

    arguments = parser.parse_args()
    execute(lambda: arguments.command(arguments))


def _add_catalogue(commands) -> None:
    listing = commands.add_parser("list", help="the recipes, one line each")
    listing.add_argument("--models", action="store_true", help="the builders of models instead")
    listing.set_defaults(command=lambda arguments: _list(arguments.models))

    summary = commands.add_parser(
        "summary", help="a model's stages: shapes, parameters, multiply-adds, receptive field"
    )
    summary.add_argument("name", metavar="NAME", help="of a builder: tfcourse list --models")
    summary.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="its arguments")
    summary.set_defaults(command=lambda arguments: _summary(arguments.name, arguments.rest))


def _add_preflight(commands) -> None:
    preflight = commands.add_parser(
        "preflight", help="whether a recipe or a saved model is ready for a TPU"
    )
    add = preflight.add_argument
    add("target", metavar="RECIPE|MODEL.keras")
    add("--batch-size", type=at_least(1), help="default: the recipe's, or 8 a replica")
    add("--replicas", type=at_least(1), default=8, help="cores that share a batch; default 8")
    preflight.set_defaults(
        command=lambda arguments: _preflight(
            arguments.target, arguments.batch_size, arguments.replicas
        )
    )


def _add_bench(commands) -> None:
    bench = commands.add_parser("bench", help="how fast it is: the benchmarks, one line each")
    add = bench.add_argument
    add("name", metavar="NAME|all", nargs="?", help="run this one, or all of them")
    add("--quick", action="store_true", help="tiny sizes, to see that it works")
    add("--repeats", type=at_least(1), help="how often the sides take turns")
    bench.set_defaults(
        command=lambda arguments: _bench(arguments.name, arguments.quick, arguments.repeats)
    )


def _list(models: bool) -> None:
    catalogue.show_builders() if models else catalogue.show_recipes()


def _summary(name: str, rest: Sequence[str]) -> None:
    builder = catalogue.find_builder(name)
    parser = Parser(
        prog=f"tfcourse summary {name}", description=builder.summary, allow_abbrev=False
    )
    arguments = read_flags(parser, builder, rest)
    _start_tensorflow()
    import tensorflow as tf

    from tfcourse import summary

    build = builder.load()
    if columns := without_flag(builder):
        from tfcourse.recommendation import course

        examples = course.examples(name)
        arguments |= {parameter: examples[parameter] for parameter in columns}
    try:
        model = build(**arguments)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ValueError(f"{name}: a model of this size does not fit into memory") from error
    except (TypeError, ValueError) as error:  # Keras' own complaints too: they are about a flag
        raise ValueError(f"{name}: {error}") from error
    summary.show(model)


def _run(name: str, rest: Sequence[str]) -> int | None:
    if name not in recipes():
        raise ValueError(f"no recipe {name!r}; there are: {', '.join(recipes())}")
    parser = Parser(prog=f"tfcourse run {name}", add_help=False, allow_abbrev=False)
    parser.add_argument("--workers", type=at_least(1))
    arguments, rest = parser.parse_known_args(rest)
    wants_help = bool({"-h", "--help"} & set(rest))
    if arguments.workers and not wants_help:
        return _run_workers(name, rest, arguments.workers)
    sys.argv = [f"tfcourse run {name}", *rest]
    if not wants_help:
        _start_tensorflow()
    runpy.run_path(str(recipes()[name]), run_name="__main__")
    return None


def _run_workers(name: str, rest: Sequence[str], count: int) -> int:
    from tfcourse import workers

    if any(word.split("=")[0] == "--strategy" for word in rest):
        raise ValueError("--workers means --strategy multi-worker: leave --strategy out")
    command = [sys.executable, "-m", "tfcourse", "run", name, *rest]
    return workers.launch([*command, "--strategy", "multi-worker"], count)


def _predict(folder: Path, images: list[Path]) -> None:
    from tfcourse.runs import read_classifier

    size, class_names = read_classifier(folder)
    _start_tensorflow()
    from hub_models.image import top_classes

    for image, top in zip(images, top_classes(folder / "saved_model", images, size), strict=True):
        best = ", ".join(f"{class_names[i]} {probability:.1%}" for i, probability in top)
        print(f"{image}: {best}")


def _doctor() -> int:
    from tfcourse import doctor

    return doctor.report()


def _preflight(target: str, batch_size: int | None, replicas: int) -> int:
    is_file = target.endswith(".keras")
    if not is_file and target not in recipes():
        raise ValueError(f"no recipe {target!r}; there are: {', '.join(recipes())}")
    if is_file and not Path(target).is_file():
        raise ValueError(f"{target} is not a file")
    _start_tensorflow()
    from tfcourse import preflight

    check = preflight.check_file if is_file else preflight.check_recipe
    path = Path(target) if is_file else recipes()[target]
    return preflight.say(check(path, batch_size=batch_size, replicas=replicas))


def _bench(name: str | None, quick: bool, repeats: int | None) -> int | None:
    from tfcourse import bench

    if name is None:
        return bench.show()
    flags = ["--quick"] * quick + (["--repeats", str(repeats)] if repeats else [])
    return bench.run(name, flags)


def _start_tensorflow() -> None:
    """Import TensorFlow without the notes on CPU instructions that look like errors."""
    tfcourse.require_tensorflow()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print("starting TensorFlow ...", flush=True)
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _raised_by_us(error: BaseException) -> bool:
    """Tell an error that our code states from one that it runs into."""
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    module = traceback.tb_frame.f_globals.get("__name__", "") if traceback else ""
    return module.split(".")[0] in OURS
