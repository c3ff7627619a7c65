"""`birdsonnx doctor`."""

from birdsonnx.cli.job import DONE, SOME_REFUSED, running
from birdsonnx.cli.options import Debug, Json


def doctor(json: Json = False, debug: Debug = False) -> None:
    """Show what this installation and machine can do; the exit code is 1 where something does not work."""
    with running(json, debug, ranks="separate") as job:
        from birdsonnx import doctor as examination

        job.result = examination.examine()
        job.say(*examination.lines(job.result))
        job.code = SOME_REFUSED if job.result["problems"] else DONE
