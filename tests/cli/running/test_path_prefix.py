"""Test the commands against a service under a path of its host."""

import json
import re
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.cli.conftest import Done, Playground
from tests.cli.sandbox import Sandbox

Iidq = Callable[..., Done]


@pytest.fixture(scope="module")
def prefixed(playground: Playground) -> Iterator[str]:
    """Return the URL of an ``iidq serve`` with ``ROOT_PATH``, on the playground's queue."""
    with Sandbox() as place:
        running = place.start(
            "serve",
            DATABASE_URL=playground.database_url,
            RPC_URL=playground.rpc_url,
            PORT="0",
            ROOT_PATH="iidq/",
            PYTHONUNBUFFERED="1",
        )
        running.wait_until_says("listens on ")
        running.wait_until_says("api.serving")
        found = re.search(r"listens on (\S+)", running.output)
        assert found is not None
        yield f"{found[1]}/iidq"


@pytest.mark.parametrize("slash", ["", "/"])
def test_every_client_takes_a_base_url_with_a_path(
    playground: Playground, prefixed: str, iidq: Iidq, slash: str
) -> None:
    """Verify, watch, list, show, count and diagnose work with a base URL with and without a final slash."""
    there = ("--server", prefixed + slash)
    question = ("--manifest", playground.manifest, "--registry", playground.registry)
    verified = iidq("verify", playground.file, *question, "--json", *there)
    assert verified.returncode == 0, verified.stderr
    job_id = json.loads(verified.stdout)["id"]
    shown = iidq("verify", playground.file, *question, *there).stdout
    [url] = re.findall(rf"{re.escape(prefixed)}/api/\S+", shown)
    assert httpx.get(url, trust_env=False).json()["jobId"] in url
    for command in (
        ("jobs", "watch", job_id),
        ("jobs", "show", job_id),
        ("jobs", "list"),
        ("stats",),
    ):
        done = iidq(*command, *there)
        assert done.returncode == 0, (command, done.stderr)
    assert "GET /api/health" in iidq("doctor", *there).stdout
    assert "not as iidq does" not in iidq("doctor", *there).stdout


def test_the_replys_poll_url_is_followed(playground: Playground, prefixed: str) -> None:
    """A client gets the job from ``pollUrl`` and ``Location``, resolved against the request URL."""
    asked = f"{prefixed}/api/verification-jobs/verify"
    fields = {
        "contentHash": "0x" + "7e" * 32,
        "manifestURI": playground.manifest,
        "registryAddress": playground.registry,
    }
    reply = httpx.post(asked, json=fields, trust_env=False)
    for told in (reply.json()["pollUrl"], reply.headers["location"]):
        job = httpx.get(reply.url.join(told), trust_env=False)
        assert job.json()["id"] == reply.json()["jobId"]
