"""`birdsonnx doctor`."""

from birdsonnx.cli.job import DONE, SOME_REFUSED, running
from birdsonnx.cli.options import Debug, Json


def doctor(json: Json = False, debug: Debug = False) -> None:
    """What this installation and machine can do; exit code 1 where something is in the way."""
    with running(json, debug, ranks="separate") as job:
        from birdsonnx import doctor as examination

        job.result = examination.examine()
        job.say(*examination.lines(job.result))
        job.code = SOME_REFUSED if job.result["problems"] else DONE
