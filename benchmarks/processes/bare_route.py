"""A bare Starlette route under the server settings of ``iidq serve``: parse the JSON, answer as many bytes."""

import socket
import sys
from uuid import UUID

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.queue.job import JobType, NewJob
from iidq.web.wire import JsonReply, accepted_shape, poll_url

_JOB = NewJob(JobType.VERIFY, "0x" + "c0" * 32, "ipfs://cid", "0x" + "5a" * 20, id=UUID(int=7))


async def submit(request: Request) -> Response:
    """Parse and answer."""
    await request.json()
    return JsonReply(accepted_shape(_JOB), headers={"Location": poll_url(_JOB.id), "X-Correlation-ID": "c0" * 16})


def main() -> None:
    """Serve the listening socket that our parent has opened, until it kills us."""
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
