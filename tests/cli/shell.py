"""Run a pasted ``curl`` command, by curl or, where curl is missing, by httpx."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import httpx

_TIMEOUT_SECONDS = 60


def curl(command: str, variables: Mapping[str, str] | None = None) -> str:
    """Return the standard output of ``command``."""
    if shutil.which("curl"):
        done = subprocess.run(
            # An unquoted & sends curl into the background, as in a reader's shell.
            ["sh", "-c", f"{command}\nwait"],
            env={"PATH": os.environ["PATH"], **(variables or {})},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
    return _by_httpx(shlex.split(Template(command.replace("\\\n", " ")).safe_substitute(variables or {})))


def _by_httpx(words: list[str]) -> str:
    options: dict[str, Any] = {"data": {}, "files": {}, "headers": {}}
    method, url, body = None, "", None
    remaining = iter(words[1:])
    for word in remaining:
        match word:
            case "-s" | "-sS" | "-i" | "-f" | "-N":
                pass
            case "-X":
                method = next(remaining)
            case "-H":
                name, _, value = next(remaining).partition(":")
                options["headers"][name] = value.strip()
            case "-d":
                body = next(remaining)
            case "-F":
                name, _, value = next(remaining).partition("=")
                if value.startswith("@"):
                    path = Path(value[1:])
                    options["files"][name] = (path.name, path.read_bytes())
                else:
                    options["data"][name] = value
            case _:
                url = word
    if body is not None:
        options = {"headers": options["headers"], "content": body}
    method = method or ("POST" if body is not None or options.get("files") else "GET")
    with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
        return client.request(method, url, **options).text
