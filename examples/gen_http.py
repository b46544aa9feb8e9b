"""An HTTP server with generators, and a client that asks it, on the casync loop.

Run it from the repository's root, after `pip install './python[gen]'`:

    python examples/gen_http.py          # the server and its client; ends by itself
    python examples/gen_http.py 8080     # the server alone, until Ctrl-C

(Ask the latter by: curl localhost:8080/notes/1)
"""

import logging
import sys
from collections.abc import Generator
from typing import Any

from casync import gen
from casync.gen.http import ClientRequest, HTTPError, Server
from casync.gen.http.server import Request, Response

app = Server()
notes: dict[str, Any] = {}


@app.router.post("/notes")
def add(request: Request) -> Generator[Any, Any, Response]:
    note = yield from request.json()
    number = str(len(notes) + 1)
    notes[number] = note
    return Response(status=201, json={"number": number})


@app.router.get("/notes/{number}")
def show(request: Request) -> Generator[Any, Any, Response]:
    yield  # a handler is a generator function; this one gives up a turn
    number = request.path_params["number"]
    if number not in notes:
        raise HTTPError(404, f"there is no note {number}")
    return Response(json=notes[number])


@app.router.get("/echo")
def echo(request: Request) -> Generator[Any, Any, Response]:
    body = yield from request.read()
    return Response(body=body, content_type=request.content_type)


def client(url: str) -> Generator[Any, Any, None]:
    response = yield from ClientRequest(f"{url}/notes", "POST", json={"text": "buy milk"}).send()
    print(response)
    number = response.json()["number"]
    for path in f"/notes/{number}", "/notes/17":
        response = yield from ClientRequest(url + path, timeout=10).send()
        print(response.status, response.text.strip())
    requests = [ClientRequest(f"{url}/echo", data=f"request {i}") for i in range(3)]
    for response in (yield from gen.gather(*(request.send() for request in requests))):
        print(response.text)


def main() -> Generator[Any, Any, None]:
    if sys.argv[1:]:
        yield from app.run(host="127.0.0.1", port=int(sys.argv[1]))
        return
    yield from app.start(host="127.0.0.1", port=0)
    yield from client(f"http://localhost:{app.sockets[0].getsockname()[1]}")
    app.close()
    yield from app.wait_closed()
    print("the server has stopped")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    gen.run(main())
