"""Test the OpenAPI document against the live service with thousands of generated requests."""

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
# A paused queue would block every job and every event stream.
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
"""The options for all operations with all checks; the runs are parallel."""


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
async def test_schemathesis_finds_nothing(
    options: list[str], database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each reply of a real service matches the OpenAPI document; bad input is refused, and good input accepted.

    No operation is excluded; ``schemathesis.toml`` and ``schemathesis_hooks.py`` give the reason for each exception.
    """
    for name, value in {
        "API_KEY": KEY,
        # A job without retries saves time.
        "MAX_RETRY_ATTEMPTS": "1",
        # From the documentation of Standard Webhooks.
        "WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        # Hundreds of requests a second would get 429.
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
            # schemathesis writes its findings to the working directory.
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
