"""The error tree: the meaning of each error for its job."""

import inspect
import re

import pytest

from iidq import errors
from iidq.errors import FieldFault, GatewayFault, IidqError, InvalidInput, ManifestFault, PermanentFault, TemporaryFault

tree = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, IidqError)]


@pytest.mark.parametrize("kind", tree, ids=lambda kind: kind.__name__)
def test_each_error_is_drawn_with_its_code(kind: type[IidqError]) -> None:
    """The drawing at the module's top has every error, and the code's prefix agrees."""
    drawing = re.search(rf"^[ │├└─]*{kind.__name__}\b(.*)$", errors.__doc__ or "", re.MULTILINE)
    assert drawing
    if prefix := re.search(r"\s([a-z]+)\.(\*|[a-z]+)", drawing[1]):
        assert kind.code.startswith(f"{prefix[1]}.")


@pytest.mark.parametrize("kind", tree, ids=lambda kind: kind.__name__)
def test_temporary_means_tried_again(kind: type[IidqError]) -> None:
    """Only errors of the temporary branch are retried."""
    assert kind.temporary == issubclass(kind, TemporaryFault)
    assert not (issubclass(kind, TemporaryFault) and issubclass(kind, PermanentFault))


def test_text_of_an_error_is_code_and_sentence() -> None:
    """``str`` of an error is its code and sentence; a code given to a single error does not change the class's code."""
    assert str(ManifestFault("no JSON")) == "manifest.malformed: no JSON"
    assert str(ManifestFault("404", code="manifest.missing")) == "manifest.missing: 404"
    assert ManifestFault.code == "manifest.malformed"
    assert GatewayFault("429", retry_after_seconds=7).retry_after_seconds == 7


def test_invalid_input_carries_all_faults() -> None:
    """An invalid input is refused with all faults at once."""
    error = InvalidInput([FieldFault("type", "expected verify or proof"), FieldFault("chainId", "expected a number")])
    assert [fault.field for fault in error.faults] == ["type", "chainId"]
    assert str(error) == "input.invalid: type: expected verify or proof; chainId: expected a number"
