"""Run the commands of docs/http.md in order against a running `iidq up`."""

import json
import re
from pathlib import Path

from tests.cli.conftest import Playground
from tests.cli.shell import curl

GUIDE = (Path(__file__).parents[3] / "docs/http.md").read_text(encoding="utf-8")


def test_the_guide_can_be_followed(playground: Playground, shell_variables: dict[str, str]) -> None:
    """Each command works unchanged: the verdict, a proof, a batch, the job, its events, list and counts."""
    commands = re.findall(r"^curl .*$", GUIDE, re.MULTILINE)
    waited, proof, batch, job, events, page, stats = commands
    verified = json.loads(curl(waited, shell_variables))
    assert (verified["status"], verified["result"]["status"]) == ("completed", "OK")
    shell_variables["JOB"] = json.loads(curl(proof, shell_variables))["jobId"]
    assert json.loads(curl(proof, shell_variables))["jobId"] == shell_variables["JOB"]
    assert len(json.loads(curl(batch, shell_variables))["jobIds"]) == 1
    assert "event: completed" in curl(events, shell_variables)
    assert json.loads(curl(job, shell_variables))["result"]["verification"]["status"] == "OK"
    assert json.loads(curl(page, shell_variables))["count"] > 0
    assert json.loads(curl(stats, shell_variables))["available"] is True


def test_the_guide_knows_every_error(playground: Playground, shell_variables: dict[str, str]) -> None:
    """The guide's table lists every error status of the OpenAPI document, except 500."""
    document = json.loads(curl('curl "$API/api/docs.json"', shell_variables))
    told = {
        status for methods in document["paths"].values() for each in methods.values() for status in each["responses"]
    }
    table = {status for row in re.findall(r"^\| ([0-9, ]+) \|", GUIDE, re.MULTILINE) for status in row.split(", ")}
    assert table - {"401"} == {status for status in told if status >= "400"} - {"500", "401"}
