"""An aiohttp application on the casync loop: aiohttp itself needs no change.

Run it from the repository's root, after `pip install ./python aiohttp`:
    python examples/aiohttp_app.py [port]
    curl http://127.0.0.1:8080/hello/world
    curl --data '{"numbers": [1, 2, 3]}' http://127.0.0.1:8080/sum
Ctrl-C ends it. The default port is 8080.
"""

import asyncio
import json
import sys

import casync
from aiohttp import web


async def hello(request: web.Request) -> web.Response:
    loop = type(asyncio.get_running_loop())
    return web.json_response({"hello": request.match_info["name"], "loop": loop.__module__})


async def add(request: web.Request) -> web.Response:
    try:
        numbers = (await request.json())["numbers"]
        return web.json_response({"sum": sum(numbers)})
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise web.HTTPBadRequest(text='send {"numbers": [...]}\n') from error


def application() -> web.Application:
    app = web.Application()
    app.add_routes([web.get("/hello/{name}", hello), web.post("/sum", add)])
    return app


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    web.run_app(application(), host="127.0.0.1", port=port, loop=casync.new_event_loop())
