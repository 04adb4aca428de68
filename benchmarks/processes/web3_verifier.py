"""The verification's steps as offered by libraries: httpx, eth_account, AsyncWeb3's contract call. No queue."""

import argparse
import asyncio
import json
import time
from pathlib import Path

import httpx
from eth_account import Account
from eth_account.messages import encode_defunct
from web3 import AsyncHTTPProvider, AsyncWeb3

from benchmarks.processes.lines import Lines, run
from benchmarks.samples import REGISTRY, Sample, read_samples

_ABI = [
    {
        "type": "function",
        "name": "entries",
        "stateMutability": "view",
        "inputs": [{"name": "", "type": "bytes32"}],
        "outputs": [
            {"name": "creator", "type": "address"},
            {"name": "timestamp", "type": "uint64"},
            {"name": "manifestURI", "type": "string"},
        ],
    }
]


async def verify(samples: list[Sample], url: str, tasks: int) -> None:
    """Verify all samples, ``tasks`` at a time; print the CPU seconds."""
    web3 = AsyncWeb3(AsyncHTTPProvider(f"{url}/rpc"))
    registry = web3.eth.contract(address=AsyncWeb3.to_checksum_address(REGISTRY), abi=_ABI)
    waiting = iter(samples)

    async def one_by_one(http: httpx.AsyncClient) -> int:
        verified = 0
        for sample in waiting:
            answer = await http.get(f"{url}/ipfs/{sample.cid}", params={"format": "raw"})
            body = answer.content
            manifest = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])
            message = encode_defunct(hexstr=manifest["content_hash"])
            recovered = Account.recover_message(message, signature=manifest["signature"])
            block = await web3.eth.get_block("latest")
            creator, _, uri = await registry.functions.entries(bytes.fromhex(sample.content_hash[2:])).call(
                block_identifier=block["number"]
            )
            verified += recovered == creator and uri == sample.manifest_uri
        return verified

    async with httpx.AsyncClient(trust_env=False) as http:
        lines = Lines()
        await lines.ready()
        started_at, cpu_at = time.perf_counter(), time.process_time()
        verified = sum(await asyncio.gather(*(one_by_one(http) for _ in range(tasks))))
        lines.result(jobs=verified, seconds=time.perf_counter() - started_at, cpu_seconds=time.process_time() - cpu_at)
    await web3.provider.disconnect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("samples", type=Path)
    parser.add_argument("url")
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    chosen = parser.parse_args()
    run(verify(read_samples(chosen.samples)[: chosen.jobs], chosen.url, chosen.tasks))
