"""aiohttp.web with the answers of app.py, on the loop of an arm: aiohttp_server.py ARM PORT."""

from __future__ import annotations

import os
import sys

import app
import loops
from aiohttp import web


async def plaintext(request: web.Request) -> web.Response:
    return web.Response(body=app.PLAINTEXT, content_type="text/plain")


async def body(request: web.Request) -> web.Response:
    return web.Response(body=app.BODY, content_type="text/plain")


def main() -> None:
    os.environ["GYRE_BENCH_ARM"], port = sys.argv[1], int(sys.argv[2])
    application = web.Application()
    application.router.add_get("/plaintext", plaintext)
    application.router.add_get("/body", body)
    web.run_app(
        application,
        host="127.0.0.1",
        port=port,
        print=lambda *_: None,
        access_log=None,
        loop=loops.new_event_loop(),
    )


main()
