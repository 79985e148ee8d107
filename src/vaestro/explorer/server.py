"""Find a port, and run the service in a thread or until Ctrl-C."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, final

from vaestro.text import InputError

if TYPE_CHECKING:
    import uvicorn

    from vaestro.explorer.worker import Worker
    from vaestro.runs.session import Session

PORT = 8000
TRIED = 100  # number of ports after the first one that are tried


@final
class Explorer:
    """Hold a running explorer.

    Args:
        url: the address of its page.
        busy: the first port, if it was taken; else None.
        server, worker: the web server, and the thread that calls the model.
        at: the socket that the server listens at.

    >>> import numpy as np, vaestro as vs
    >>> with_page = vs.train(np.eye(40, dtype="uint8"), run="seen", latent=2, steps=2).explore()
    >>> with_page.url == str(with_page)
    True
    >>> with_page.stop()
    """

    def __init__(
        self, url: str, busy: int | None, server: uvicorn.Server, worker: Worker, at: socket.socket
    ) -> None:
        self.url, self.busy = url, busy
        self._server, self._worker, self._socket = server, worker, at
        self._thread = threading.Thread(
            target=server.run, kwargs={"sockets": [at]}, name="vaestro server", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + 30
        while not server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def __repr__(self) -> str:
        return f"Explorer({self.url!r})"

    def __str__(self) -> str:
        return self.url

    def _repr_html_(self) -> str:
        return f'<a href="{self.url}" target="_blank" rel="noopener">{self.url}</a>'

    def wait(self) -> None:
        """Wait until the server ends or Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(0.2)

    def stop(self) -> None:
        """End the server and the thread of the model."""
        self._server.should_exit = True
        self._thread.join(10)
        self._worker.stop()
        self._socket.close()


def explore(session: Session, host: str = "127.0.0.1", port: int | None = None) -> Explorer:
    """Start the explorer of a run in a thread.

    Args:
        session: on the run.
        host: the address to bind to. On others than 127.0.0.1 anyone who can reach it can read the
            run's data.
        port: of the server; by default 8000, or the next free one.

    Raises:
        ValueError: the extra vaestro[explorer] is not installed, the model has no latent, or the
            port is taken.

    >>> import numpy as np, vaestro as vs
    >>> run = vs.train(np.eye(40, dtype="uint8"), run="explored", latent=2, steps=2)
    >>> explorer = explore(vs.open(run))
    >>> explorer.url.startswith("http://127.0.0.1:")
    True
    >>> explorer.stop()
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ValueError(
            "expected the extra vaestro[explorer] to explore a run (pip install "
            "'vaestro[explorer]'); got an installation without it"
        ) from error
    from vaestro.explorer.engine import Engine
    from vaestro.explorer.guard import Guard
    from vaestro.explorer.service import service
    from vaestro.explorer.worker import Worker

    engine = Engine(session)
    at, busy = _bound(host, port)
    try:
        worker = Worker()
        worker.call(engine.info).result()
        config = uvicorn.Config(
            Guard(service(engine, worker), host),
            log_level="critical",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
            server_header=False,
        )
        number = at.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        return Explorer(f"http://{shown}:{number}/", busy, uvicorn.Server(config), worker, at)
    except BaseException:
        at.close()
        raise


def _bound(host: str, port: int | None) -> tuple[socket.socket, int | None]:
    """Return a socket that is bound to a port, and the first port if that was taken.

    Raises:
        ValueError: the port is taken or out of range, or the host is not an address of this
            computer.
    """
    if port is not None and not 0 <= port < 2**16:
        raise ValueError(f"expected a port from 0 to 65535; got {port}")
    first = PORT if port is None else port
    try:
        return _listening(host, first), None
    except OSError as error:
        if isinstance(error, socket.gaierror) or not _is_taken(error):
            raise ValueError(
                f"expected an address of this computer and a port that may be used, such as "
                f"--host 127.0.0.1; got {host} port {first}"
            ) from error
    for number in range(first + 1, min(first + TRIED, 2**16)):
        try:
            free = _listening(host, number)
        except OSError:
            continue
        if port is None:
            return free, first
        free.close()
        raise InputError(f"port {port} is in use (the next free one: --port {number})")
    raise InputError(f"port {first} and the {TRIED - 1} after it are in use: name another --port")


def _is_taken(error: OSError) -> bool:
    import errno

    return error.errno == errno.EADDRINUSE


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small packets at once only for sockets of this protocol
    at = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        at.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        at.bind((host, port))
        at.listen(128)
    except BaseException:
        at.close()
        raise
    return at
