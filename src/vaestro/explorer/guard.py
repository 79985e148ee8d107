"""What every request passes: its host, its origin and its size; headers of responses; problems.

A page of another site can send requests to 127.0.0.1, and through a host name that resolves to it
(DNS rebinding) read the answers. Therefore the Host header is checked, and so is Origin.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, TypeAlias, final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from vaestro.text import visible

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 32 * 2**20  # largest size of a request
LOCAL = ("127.0.0.1", "localhost", "::1")
PROBLEM = "application/problem+json"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def problem(status: int, detail: str) -> bytes:
    """Return a problem detail (RFC 9457) as JSON.

    >>> json.loads(problem(413, "too many rows"))["title"]
    'Request Entity Too Large'
    """
    title = HTTPStatus(status).phrase
    if status == 413:
        title = "Request Entity Too Large"
    fields = {"type": "about:blank", "title": title, "status": status, "detail": visible(detail)}
    return json.dumps(fields).encode()


def host_name(header: str) -> str:
    """Return the name in a Host header, in lower case without its port.

    >>> host_name("LOCALHOST:8000"), host_name("[::1]:8000")
    ('localhost', '::1')
    """
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


@final
class Guard:
    """Check requests before an application receives them, and add headers to its responses.

    Args:
        application: the service.
        host: the address that the server is bound to. Names of this computer are always allowed;
            if it is bound to an address of a network, any address is too, but no other name.
    """

    def __init__(self, application: Application, host: str) -> None:
        self.application, self.host = application, host.lower()

    def allows(self, header: str) -> bool:
        """Return whether a Host header names this server."""
        name = host_name(header)
        if name in LOCAL or name == self.host:
            return True
        if self.host in LOCAL:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        length = headers.get(b"content-length", b"0")
        if not self.allows(host):
            await _answer(send, 421, f"expected a request to this computer; got one to {host!r}")
        elif origin and origin not in (f"http://{host}", f"https://{host}"):
            await _answer(send, 403, f"expected a request of this page; got one of {origin!r}")
        elif not length.isdigit() or int(length) > MOST_BYTES:
            await _answer(send, 413, _too_large())
        else:
            await self._pass(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer a request of a limited size."""
        size, started = 0, False

        async def limited() -> Event:
            nonlocal size
            event = await receive()
            size += len(event.get("body", b""))
            if size > MOST_BYTES:
                raise HTTPException(413, _too_large())
            return event

        async def sent(event: Event) -> None:
            nonlocal started
            if event["type"] == "http.response.start":
                started = True
                names = {name.lower() for name, _ in event["headers"]}
                event["headers"] = [*event["headers"], *_encoded(names)]
            await send(event)

        try:
            await self.application(scope, limited, sent)
        except Exception as error:  # the application has answered, or the client has gone
            if not started:
                await _answer(send, 500, f"{type(error).__name__}: the request failed")


def _too_large() -> str:
    return f"expected at most {MOST_BYTES:,} bytes in a request, and a Content-Length; got more"


def _encoded(present: set[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the headers of every response that are not there yet."""
    return [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in present]


async def _answer(send: Send, status: int, detail: str) -> None:
    """Send a problem detail."""
    headers = [(b"content-type", PROBLEM.encode()), (b"connection", b"close"), *_encoded(set())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": problem(status, detail)})
