"""`birdsonnx serve`."""

from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import DONE, SOME_REFUSED, Job, running
from birdsonnx.cli.options import Debug, Engine, Json, Precision, Threads, engine_of, precision_of
from birdsonnx.errors import ConfigError, InstallationError
from birdsonnx.extras import how_to_install

NAMED_HERE = ("localhost", "127.0.0.1", "[::1]")
"""What this machine is called by those on it."""


Model = Annotated[
    Path | None,
    typer.Argument(help="The .onnx (default: the newest checkpoint in model_checkpoints_save/)."),
]
Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines come in.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free; it is printed.")]
MaxUpload = Annotated[
    int, typer.Option(metavar="MB", min=1, max=1024, help="Largest request; larger ones are refused.")
]
Queue = Annotated[
    int, typer.Option(min=1, max=10_000, help="Photos that may wait; more are answered 503, try again.")
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Another name by which clients may call it, such as a proxy's; give it again for each.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Photos per run of a thread, at most (default: 4, OpenVINO: 1)."),
]


def serve(
    model: Model = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    max_upload: MaxUpload = 20,
    queue: Queue = 64,
    allow_host: AllowHost = None,
    threads: Threads = None,
    batch_size: BatchSize = None,
    engine: Engine = "auto",
    precision: Precision = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Serve a page that names a dropped photo, and POST /predict for programs; until Ctrl-C."""
    with running(json, debug, ranks="one") as job:
        try:
            from birdsonnx.serving import server
            from birdsonnx.serving.api import Limits, Service
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            raise InstallationError(f"serving needs {package}: {how_to_install('serve')}") from None
        from birdsonnx.inference.requests import Request
        from birdsonnx.serving.model import opened

        request = Request(
            [],
            model=model,
            threads=threads,
            per_run=batch_size,
            precision=precision_of(precision),
            engine=engine_of(engine),
        )
        is_private = server.is_loopback(host)
        hosts = (*NAMED_HERE, host, *_names(allow_host)) if is_private or allow_host else ("*",)
        with server.address(host, port) as own:
            service = Service(opened(request, job.ranks, job.console()), Limits(max_upload, queue, hosts))
            url = server.url(own, host)

            def ready() -> None:
                job.announce({"url": url, **service.about, "classes": service.classifier.num_classes})
                _tell(job, service.about, url, is_private)

            server.serve(service, own, ready, debug)
        left = service.given_up
        job.say(f"stopped; {left} requests were given up" if left else "stopped; every request is answered")
        job.code = SOME_REFUSED if left else DONE


def _names(allowed: list[str] | None) -> list[str]:
    for name in allowed or ():
        if "*" in name.removeprefix("*.") or "/" in name or ":" in name.strip("[]"):
            raise ConfigError(f"--allow-host {name!r}: give a name without port, such as birds.example.org")
    return allowed or []


def _tell(job: Job, about: dict[str, str], url: str, is_private: bool) -> None:
    job.say(f"{about['model']} on {about['engine']}")
    if not is_private:
        job.say("other machines reach it too: it asks for no password, and what is sent is not encrypted")
    job.say(f"open {url}   (Ctrl-C stops it)")
