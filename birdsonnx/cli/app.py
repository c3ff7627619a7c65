"""The command line: the verbs and their examples."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from birdsonnx import __version__
from birdsonnx.cli.benchmark import benchmark
from birdsonnx.cli.calibrate import calibrate
from birdsonnx.cli.compare import compare
from birdsonnx.cli.configs import configs
from birdsonnx.cli.demo import demo
from birdsonnx.cli.doctor import doctor
from birdsonnx.cli.evaluate import evaluate
from birdsonnx.cli.export import export
from birdsonnx.cli.info import info
from birdsonnx.cli.init import init
from birdsonnx.cli.job import CANNOT, one_speaker
from birdsonnx.cli.plot import plot
from birdsonnx.cli.predict import predict
from birdsonnx.cli.quantize import quantize
from birdsonnx.cli.report import report
from birdsonnx.cli.sample import sample
from birdsonnx.cli.schema import schema
from birdsonnx.cli.serve import serve
from birdsonnx.cli.split import split
from birdsonnx.cli.train import train
from birdsonnx.config.wording import nearest
from birdsonnx.errors import BirdsonnxError
from birdsonnx.reporting.terminal import lose, write_line, write_lines
from birdsonnx.runtime import interruption

app = typer.Typer(
    name="birdsonnx",
    help="From a Keras classifier and folders of photos to one self-contained ONNX file that names birds.",
    invoke_without_command=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        write_line(f"birdsonnx {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None and not version:
        write_lines(context.get_help().splitlines(), error=True)
        raise typer.Exit(CANNOT)


VERBS: dict[Callable[..., None], str] = {
    export: "birdsonnx export --weights resnet50_notop.h5 --labels data/train -o models/birds.onnx",
    train: "birdsonnx train --data data, or OMP_NUM_THREADS=2 mpirun -np 4 birdsonnx train config_train.json",
    init: "birdsonnx init data, then birdsonnx train config.json",
    predict: "birdsonnx predict test_samples/ -o predictions/",
    evaluate: "birdsonnx evaluate data/test --model model_checkpoints_save/model_checkpoint_6.onnx",
    quantize: "birdsonnx quantize model_checkpoints_save/model_checkpoint_6.onnx "
    "--calibrate data/train --validate data/valid",
    calibrate: "birdsonnx calibrate model_checkpoints_save/model_checkpoint_6.onnx --validate data/valid "
    "--precision 0.95",
    split: "birdsonnx split photos data --keep-sequences",
    sample: "birdsonnx sample data/test test_samples",
    plot: "birdsonnx plot out_classifier.txt, or birdsonnx plot --augmented config_train.json",
    report: "birdsonnx report runs/train_1, or birdsonnx report predictions/output_1.h5 --photos photos/",
    benchmark: "birdsonnx benchmark models/resnet50_birds.onnx --data data/test --plot speed.png",
    compare: "birdsonnx compare config.json --arch resnet50 mobilenetv2 --plot front.png",
    serve: "birdsonnx serve models/resnet50_birds.onnx --port 8000",
    info: "birdsonnx info models/resnet50_birds.onnx",
    doctor: "birdsonnx doctor",
    demo: "birdsonnx demo demo/",
    configs: "birdsonnx configs models/",
    schema: "birdsonnx schema -o birdsonnx.schema.json",
}
"""Each verb and an example of it, in the order of `--help`."""

for verb, example in VERBS.items():
    # Given as short help, the first paragraph stays whole in the list of verbs, on as many lines as it takes.
    summary = " ".join((verb.__doc__ or "").split("\n\n")[0].split())
    app.command(epilog=f"Example: {example}", short_help=summary)(verb)


def main() -> None:
    """Entry point of the `birdsonnx` command."""
    with one_speaker():
        try:
            code = app(standalone_mode=False)
        except typer.Abort:
            code = CANNOT
        except OSError as error:  # of typer's own lines: the help
            lose(sys.stdout)
            write_line(f"birdsonnx: cannot write to stdout: {error.strerror}", error=True)
            code = CANNOT
        except BirdsonnxError as error:
            write_line(f"birdsonnx: {error}", error=True)
            code = CANNOT
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            _show(error)
            code = CANNOT
        interrupted = interruption.raised()  # outside the verb: typer leaves then, and says nothing
        if interrupted is not None:
            raise interrupted
        sys.exit(code)


def _show(error: Any) -> None:
    """An option or argument that does not exist, or cannot be: a file whose name begins with a dash becomes
    one. By its methods, since typer brings its own click from some version on."""
    context = getattr(error, "ctx", None)
    if context is not None:
        write_lines(context.get_usage().splitlines(), error=True)
        write_lines([f"Try '{context.command_path} --help' for help.", ""], error=True)
    write_line(f"Error: {_message_of(error, context)}", error=True)


def _message_of(error: Any, context: Any) -> str:
    """typer's own; for an option that does not exist, with the one that is nearest."""
    option = getattr(error, "option_name", None)
    if option is None or context is None or not hasattr(error, "possibilities"):
        return str(error.format_message())
    known = [name for each in context.command.get_params(context) for name in each.opts]
    return f"No such option: {option}{nearest(option, known)}"
