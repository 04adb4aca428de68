"""Gigabits per second of one upload by curl, of eight at once, and of ``openssl sha256`` of the same file."""

import contextlib
import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.samples import REGISTRY
from benchmarks.service import Serving, api

AT_ONCE = 8
_CHUNK = 1 << 20
_HASHINGS = 3
_SAMPLE_SECONDS = 0.05


class UploadFailed(Exception):
    """curl did not get a 200."""


def sha256(bench: Bench) -> dict[str, float]:
    """Hash with ``openssl sha256 FILE``, or with hashlib if openssl is missing; the file is in the page cache.

    The best of three counts, so that a disturbance of the reference does not flatter the uploads.
    """
    path = _file(bench)
    return {"sha256_gbps": _gbps(path, 1, min(_hashing_seconds(path) for _ in range(_HASHINGS)))}


def _hashing_seconds(path: Path) -> float:
    started_at = time.perf_counter()
    try:
        subprocess.run(["openssl", "sha256", path], check=True, capture_output=True)
    except FileNotFoundError:
        started_at = time.perf_counter()
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    return time.perf_counter() - started_at


def upload(bench: Bench) -> dict[str, float]:
    """Measure one upload, then eight at once; and the growth of the API's memory in both cases."""
    path = _file(bench)
    with bench.server.migrated_database() as url:
        environment = {"DATABASE_URL": url, "RPC_URL": "http://127.0.0.1:9"}
        with api(environment, bench.server.scratch / "api.log") as server:
            # The first request of a process also pays for imports.
            _send(server, [_small(bench)])
            one_seconds, one_mib = _send(server, [path])
            all_seconds, all_mib = _send(server, [path] * AT_ONCE)
    return {
        "upload_gbps": _gbps(path, 1, one_seconds),
        "upload8_gbps": _gbps(path, AT_ONCE, all_seconds),
        "upload_memory_mib": one_mib,
        "upload8_memory_mib": all_mib,
    }


def _send(server: Serving, paths: list[Path]) -> tuple[float, float]:
    with _watched_memory(server) as grown:
        started_at = time.perf_counter()
        clients = [
            subprocess.Popen(
                ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "300",
                 "-F", f"file=@{path}", "-F", f"registryAddress={REGISTRY}", "-F", "manifestURI=https://example.org/m",
                 f"{server.url}/api/verification-jobs/verify"],
                stdout=subprocess.PIPE,
            )
            for path in paths
        ]  # fmt: skip
        answers = [client.communicate()[0] for client in clients]
        seconds = time.perf_counter() - started_at
    if any(answer != b"200" for answer in answers):
        raise UploadFailed(f"curl's answers: {answers}")
    return seconds, grown[0]


@contextlib.contextmanager
def _watched_memory(server: Serving) -> Iterator[list[float]]:
    """Sample the growth of resident memory, in MiB."""
    before, grown, ended = server.memory_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            grown[0] = max(grown[0], server.memory_mib() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield grown
    finally:
        ended.set()
        watcher.join()


def _file(bench: Bench) -> Path:
    @contextlib.contextmanager
    def made() -> Iterator[Path]:
        path = bench.server.scratch / "upload.bin"
        with path.open("wb") as file:
            for _ in range(bench.options.upload_mib):
                file.write(os.urandom(_CHUNK))
        yield path
        path.unlink()

    return bench.once("upload", made)


def _small(bench: Bench) -> Path:
    path = bench.server.scratch / "small.bin"
    path.write_bytes(b"small")
    return path


def _gbps(path: Path, times: int, seconds: float) -> float:
    return path.stat().st_size * 8 * times / seconds / 1e9
