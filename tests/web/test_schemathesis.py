"""The document against the live service: thousands of requests made from the one, sent to the other."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from iidq.cli.running.samples import publish_sample
from iidq.embedded.stack import run_stack
from iidq.settings import Settings

ROOT = Path(__file__).parents[2]
KEY = "sesame"
TIMEOUT_SECONDS = 300.0

EACH_OPERATION = "examples,coverage,fuzzing"
# A paused queue would let every job and every stream of events wait for ever.
STEERS_THE_QUEUE = "/(pause|resume)$"
RUNS = {
    "questions": [
        "--phases",
        EACH_OPERATION,
        "--max-examples",
        "3",
        "--include-tag",
        "Submit",
        "--include-tag",
        "Synchronous",
    ],
    "everything else": [
        "--phases",
        EACH_OPERATION,
        "--max-examples",
        "3",
        "--exclude-tag",
        "Submit",
        "--exclude-tag",
        "Synchronous",
    ],
    "one after another": ["--phases", "stateful", "--max-examples", "12", "--exclude-path-regex", STEERS_THE_QUEUE],
}
"""All operations, all checks; the parts run side by side."""


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
async def test_schemathesis_finds_nothing(
    options: list[str], database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Real API, worker, Postgres and chain: each reply is a described one, bad input is refused, good is accepted.

    Nothing is excluded; ``schemathesis.toml`` and ``schemathesis_hooks.py`` say with reasons what is told to it.
    """
    for name, value in {
        "API_KEY": KEY,
        # A job that ends at its first fault keeps nobody waiting.
        "MAX_RETRY_ATTEMPTS": "1",
        # As in the documentation of Standard Webhooks.
        "WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        # Requests come by the hundred a second, and 429 is no answer to any of them.
        "RATE_LIMIT_SUBMIT_PER_MINUTE": "0",
        "RATE_LIMIT_READ_PER_MINUTE": "0",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None, database_url=database_url)
    async with run_stack(settings, workers=1, port=0, logs_to_files=True) as stack:
        sample = await publish_sample(stack, "song.wav", seed=1)
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--config-file", str(ROOT / "tests/web/schemathesis.toml")),
            *("run", f"{stack.api_url}/api/docs.json", "--checks", "all", "--header", f"x-api-key: {KEY}"),
            *("--continue-on-failure", "--generation-deterministic", "--no-color", *options),
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "tests.web.schemathesis_hooks",
                "PYTHONPATH": str(ROOT),
                "TEST_MANIFEST_URI": sample.manifest_uri,
                "TEST_MANIFEST_SERVER": stack.manifests.base_url,
                "TEST_RPC_URL": stack.rpc_url,
            },
            # It keeps what it found in the working directory.
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                said, _ = await program.communicate()
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
        assert program.returncode == 0, said.decode(errors="replace")
