"""A server's life: its address, its thread, and its end, at which all that was taken is answered."""

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from birdsonnx.errors import ConfigError
from birdsonnx.runtime import interruption
from birdsonnx.serving.api import Service

GRACE_S = 8.0
"""In which what is under way must be answered at the end; `docker stop` kills after 10."""

IDLE_S = 5
"""For which a connection is kept that asks for nothing."""

CONNECTIONS = 512
"""At a time; more are answered 503 at once."""

POLL_S = 0.1


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def address(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that has its address, but does not listen yet; port 0 is any free one.

    Raises:
        ConfigError: there is no such address, or it is taken.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: {getattr(error, 'strerror', error)}") from None
    with socket.socket(family, kind, protocol) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind(place)
        except OSError as error:
            raise ConfigError(
                f"{host}, port {port}: {error.strerror}; choose another with --port (0: a free one)"
            ) from None
        yield own


def url(own: socket.socket, host: str) -> str:
    """What to open in a browser on this machine."""
    port = own.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"


def serve(service: Service, own: socket.socket, ready: Callable[[], None], debug: bool = False) -> None:
    """Answer until a signal asks for the end; then take nothing more and finish what is under way, or give it
    up where it takes longer than `GRACE_S` (`service.given_up`).

    Args:
        ready: called once connections are taken.
        debug: whether uvicorn says on stderr what it does.
    """
    if not debug:
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)
    server = uvicorn.Server(
        uvicorn.Config(
            service.app(),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=int(GRACE_S),
        )
    )
    # A thread of its own, since uvicorn would handle signals in the main one: they are ours.
    working = threading.Thread(target=server.run, args=([own],), name="http")
    try:
        with interruption.held():
            working.start()
            announced = False
            while working.is_alive() and not interruption.asked():
                working.join(POLL_S)
                if server.started and not announced:
                    announced = True
                    ready()
            service.stopping = True
            server.should_exit = True
            working.join()
            service.batcher.close()
    except interruption.Interrupted:  # the usual end
        interruption.reported()
