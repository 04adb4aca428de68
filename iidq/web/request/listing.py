"""Check the query of ``GET /api/verification-jobs``, and name all faults at once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from starlette.datastructures import QueryParams

from iidq.errors import FieldFault, InvalidInput
from iidq.queue.job import JobStatus, JobType
from iidq.queue.read.paging import Cursor
from iidq.web.request.submission import SCHEMAS, Schema, content_hash

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500
"""Most jobs on a page."""
MAX_OFFSET: Final = 2**31 - 1

PARAMETERS: Final[Mapping[str, Schema]] = {
    "status": {"enum": list(JobStatus), "description": "Jobs in this state only."},
    "type": {"enum": list(JobType), "description": "Jobs of this type only."},
    "contentHash": {**SCHEMAS["contentHash"], "description": "Jobs about this content only."},
    "limit": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_LIMIT,
        "default": DEFAULT_LIMIT,
        "description": "Jobs on a page.",
    },
    "offset": {
        "type": "integer",
        "minimum": 0,
        "maximum": MAX_OFFSET,
        "default": 0,
        "description": "Jobs to skip. With a large offset the page may be empty, and its `nextCursor` leads to the "
        "rest: prefer `cursor`, and give only one of them.",
    },
    "cursor": {
        "type": "string",
        "format": "cursor",
        "description": "`nextCursor` of the page before.",
    },
}
"""Description of the parameters; each may be given once, and an empty one counts as absent."""

_INTEGER = re.compile(r"[0-9]{1,10}")
_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Listing:
    """Filters and page of a list of jobs."""

    status: JobStatus | None
    """Jobs in this state only; None for all."""
    type: JobType | None
    """Jobs of this type only; None for all."""
    content_hash: str | None
    """Jobs about this content only, ``0x`` and 64 lower-case hex digits; None for all."""
    limit: int
    """Jobs on the page, 1 to :data:`MAX_LIMIT`."""
    offset: int
    """Jobs to skip; 0 with ``after``."""
    after: Cursor | None
    """End of the page before; None for the first page."""


def read_listing(query: QueryParams) -> Listing:
    """Return the listing in a query. Raise :class:`InvalidInput`, which names the allowed values."""
    faults: list[FieldFault] = []

    def given(name: str) -> str | None:
        values = query.getlist(name)
        if len(values) > 1:
            faults.append(FieldFault(name, "is given more than once"))
            return None
        return values[0] if values and values[0] else None

    def choice(name: str, choices: type[_Choice]) -> _Choice | None:
        text = given(name)
        if text is None or text in set(choices):
            return choices(text) if text else None
        faults.append(FieldFault(name, f"expected one of {', '.join(choices)}"))
        return None

    def integer(name: str, default: int, least: int, most: int) -> int:
        text = given(name)
        if text is None:
            return default
        if _INTEGER.fullmatch(text) and least <= int(text) <= most:
            return int(text)
        faults.append(FieldFault(name, f"expected an integer from {least} to {most}"))
        return default

    def hash_filter() -> str | None:
        text = given("contentHash")
        try:
            return content_hash(text) if text else None
        except ValueError as error:
            faults.append(FieldFault("contentHash", str(error)))
            return None

    def cursor() -> Cursor | None:
        text = given("cursor")
        try:
            return Cursor.decode(text) if text else None
        except ValueError:
            faults.append(FieldFault("cursor", "expected the nextCursor of an earlier page"))
            return None

    listing = Listing(
        status=choice("status", JobStatus),
        type=choice("type", JobType),
        content_hash=hash_filter(),
        limit=integer("limit", DEFAULT_LIMIT, 1, MAX_LIMIT),
        offset=integer("offset", 0, 0, MAX_OFFSET),
        after=cursor(),
    )
    if listing.after and listing.offset:
        faults.append(FieldFault("offset", "expected 0 or nothing beside a cursor"))
    if faults:
        raise InvalidInput(faults)
    return listing
