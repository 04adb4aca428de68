"""A Starlette route under the server settings of ``iidq serve``: parse the JSON, answer as many bytes."""

import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_ID = "00000000-0000-0000-0000-000000000007"
_URL = f"/api/verification-jobs/{_ID}"
_ANSWER = {
    "mode": "async",
    "jobId": _ID,
    "status": "queued",
    "message": "Verification job queued successfully",
    "pollUrl": _URL,
}
_HEADERS = {"Location": _URL, "X-Correlation-ID": "c0" * 16}


async def submit(request: Request) -> Response:
    """Parse and answer."""
    await request.json()
    return JSONResponse(_ANSWER, headers=_HEADERS)


def main() -> None:
    """Serve the listening socket opened by the parent, until killed by the parent."""
    config = uvicorn.Config(
        Starlette(routes=[Route("/submit", submit, methods=["POST"])]),
        backlog=2048,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=False,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
