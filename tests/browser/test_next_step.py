"""The advice of the page after a failure: "try again" only where a new attempt can help."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import iidq
from iidq import errors
from iidq.errors import IidqError, PermanentFault, TemporaryFault
from tests.browser.conftest import OpenPage, Service

MODULES = [
    path for name in ("provenance", "guarded_http") for path in (Path(iidq.__file__).parent / name).rglob("*.py")
]
FAULTS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, IidqError)}


def codes_of(base: type[IidqError]) -> Iterator[str]:
    """Yield the error code of each fault raised during a verification, for the faults derived from ``base``."""
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FAULTS:
                kind = FAULTS[node.func.id]
                named = [word.value for word in node.keywords if word.arg == "code"]
                code = named[0].value if named and isinstance(named[0], ast.Constant) else kind.code
                if issubclass(kind, base):
                    yield str(code)


async def test_trying_again_is_advised_where_it_can_help(service: Service, open_page: OpenPage) -> None:
    """The page does not advise "try again" after a permanent fault, such as a chain unknown to the service."""
    page = await open_page(service.url)
    source = await page.evaluate("document.querySelector('script[type=module]').src")
    advice = {
        code: str(await page.evaluate("([from, code]) => import(from).then((api) => api.nextStep(code))", [api, code]))
        for api in [source.rpartition("/")[0] + "/api.js"]
        for code in [*codes_of(PermanentFault), *codes_of(TemporaryFault)]
    }
    assert set(codes_of(PermanentFault)) & set(codes_of(TemporaryFault)) == set()
    again = re.compile(r"try again|later|minutes|moment", re.IGNORECASE)
    assert {code for code in codes_of(PermanentFault) if again.search(advice[code])} == set()
    assert {code for code in codes_of(TemporaryFault) if not again.search(advice[code])} == set()
    assert {"rpc.chain_not_configured", "rpc.chain_mismatch", "manifest.not_found", "rpc.unreachable"} <= advice.keys()
    # A refused RPC URL has no advice about manifests.
    assert "manifest" not in advice["fetch.refused.rpc_url"]
