"""Check every result of a verifier against the packaged schema."""

from typing import Any

import pytest

from iidq.provenance.verifier import Verifier
from tests.provenance.report_schema import valid


@pytest.fixture(autouse=True)
def _valid_results(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Verifier.run

    async def run_and_validate(*arguments: Any, **options: Any) -> dict[str, Any]:
        return valid(await run(*arguments, **options))

    monkeypatch.setattr(Verifier, "run", run_and_validate)
