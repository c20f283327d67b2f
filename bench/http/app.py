"""A small ASGI application with the shapes of answer that services have.

    /plaintext  13 bytes      /json  a serialised object      /body  10 KiB
    /echo       POST: the request's body back                 /loop  which event loop serves

It imports no framework, so that the server and the loop under it are most of what a request costs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

PLAINTEXT = b"Hello, world!"
BODY = bytes(range(32, 127)) * 108  # 10,260 bytes of printable text
OBJECT = {"message": "Hello, world!", "numbers": list(range(16)), "nested": {"yes": True}}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    if scope["type"] != "http":
        raise ValueError(f"this application does not speak {scope['type']}")
    path = scope["path"]
    if path == "/plaintext":
        await answer(send, PLAINTEXT, b"text/plain; charset=utf-8")
    elif path == "/json":
        await answer(send, json.dumps(OBJECT).encode(), b"application/json")
    elif path == "/body":
        await answer(send, BODY, b"text/plain; charset=utf-8")
    elif path == "/echo" and scope["method"] == "POST":
        await answer(send, await whole_body(receive), b"application/octet-stream")
    elif path == "/loop":
        loop = type(asyncio.get_running_loop())
        await answer(send, f"{loop.__module__}.{loop.__qualname__}".encode(), b"text/plain")
    else:
        await answer(send, b"there is no such page\n", b"text/plain", 404)


async def answer(send: Send, body: bytes, kind: bytes, status: int = 200) -> None:
    length = str(len(body)).encode()
    headers = [(b"content-type", kind), (b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def whole_body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
