"""Every result that a verifier gives in these tests is held against the schema in the package."""

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
