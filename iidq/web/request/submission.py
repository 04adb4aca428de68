"""Check the fields of a submission, form or JSON, and name all faults at once. Pure."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

from iidq.errors import FetchRefused, FieldFault, InvalidInput
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.guarded_http.url import MAX_URI_CHARACTERS, parse_web_url
from iidq.notation import ADDRESS, HASH
from iidq.observability import traces
from iidq.observability.redaction import redact_endpoint
from iidq.provenance.ethereum.chains import check_rpc_url, identify_endpoint
from iidq.provenance.manifest_uri import parse_manifest_uri
from iidq.queue.job import SHARED, IdempotencyKey, JobType, NewJob
from iidq.settings import Settings
from iidq.subject import Subject
from iidq.web.request.uploads import MAX_FILE_NAME_LENGTH, Upload, file_name_fault

_POSITIVE = re.compile(r"[1-9][0-9]{0,15}")
_TRUTH = re.compile(r"[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]")
MAX_CHAIN_ID: Final = 2**53 - 1
"""The largest integer that all JSON readers represent exactly."""

_EXPECTED: Final = {
    "registryAddress": "expected 0x followed by 40 hex digits",
    "manifestURI": "expected ipfs://CID, ipfs://CID/path, http:// or https://",
    "contentHash": "expected 0x followed by 64 hex digits",
    "chainId": f"expected an integer from 1 to {MAX_CHAIN_ID}",
    "rpcUrl": "expected a configured JSON-RPC endpoint, or no rpcUrl at all",
    "share": "expected true or false",
    "callbackUrl": "expected http:// or https://",
}

Schema = Mapping[str, object]
"""A JSON Schema."""

SCHEMAS: Final[Mapping[str, Schema]] = {
    "registryAddress": {
        "type": "string",
        "pattern": f"^{ADDRESS.pattern}$",
        "description": "The content registry's address.",
    },
    "manifestURI": {
        "type": "string",
        "format": "manifest-uri",
        "maxLength": MAX_URI_CHARACTERS,
        "description": "`ipfs://CID`, `ipfs://CID/path`, or the http(s) URL of a public host on the scheme's own port.",
    },
    "contentHash": {
        "type": "string",
        "pattern": f"^{HASH.pattern}$",
        "description": "SHA-256 of the file, instead of the file.",
    },
    "chainId": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_CHAIN_ID,
        "description": "One of the configured chains; without it the default chain.",
    },
    "rpcUrl": {
        "type": "string",
        "format": "rpc-url",
        "minLength": 1,
        "description": "One of the endpoints that the service has configured or allows (`RPC_ALLOWED_URLS`).",
    },
    "fileName": {
        "type": "string",
        "format": "file-name",
        "minLength": 1,
        "maxLength": MAX_FILE_NAME_LENGTH,
        "description": "Name of the file in a proof, if only its hash is sent.",
    },
    "share": {
        "type": "boolean",
        "default": False,
        "description": "Whether an equal job that still waits or runs may answer this submission, too.",
    },
    "callbackUrl": {
        "type": "string",
        "format": "callback-url",
        "maxLength": MAX_URI_CHARACTERS,
        "description": "Receiver of a signed webhook at the job's end: the http(s) URL of a public host on the "
        "scheme's own port. Not together with `share`, and only if the service has a `WEBHOOK_SECRET`.",
    },
}
"""Description of the checks of :class:`SubmissionRules`, for ``/api/docs.json``."""

TEXT_PATTERNS: Final = {"chainId": f"^{_POSITIVE.pattern}$", "share": f"^({_TRUTH.pattern})$"}
"""Patterns of fields that JSON may also send as text."""

REQUIRED: Final = ("registryAddress", "manifestURI")
"""Required fields, in addition to ``file`` or ``contentHash``."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked request."""

    subject: Subject
    """Inputs of the verification."""
    share: bool = False
    """An equal job of another caller may answer this request."""
    callback_url: str | None = None
    """Receiver of a webhook at the job's end; None for no webhook."""

    def as_job(self, job_type: JobType, key: IdempotencyKey | None = None) -> NewJob:
        """Return the job, under ``key``, or under a key shared by equal requests."""
        if key is None and self.share:
            shared = self.fingerprint(job_type, with_file_name=False)
            key = IdempotencyKey(SHARED, shared.hex(), shared)
        return NewJob(
            type=job_type,
            subject=self.subject,
            key=key,
            trace_context=traces.current(),
            callback_url=self.callback_url,
        )

    def fingerprint(self, job_type: JobType, *, with_file_name: bool = True) -> bytes:
        """Return a SHA-256 that is equal for equal requests, by file or by hash."""
        subject = self.subject
        fields = [
            job_type.value,
            subject.content_hash,
            subject.manifest_uri,
            subject.registry_address.lower(),
            # Without credentials two endpoints can look equal.
            subject.endpoint_id,
            subject.chain_id,
            *([subject.file_name] if with_file_name else []),
            *([] if self.callback_url is None else [self.callback_url]),
        ]
        return hashlib.sha256(json.dumps(fields).encode()).digest()


class SubmissionRules:
    """Rules for each field under these settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fetch_policy = FetchPolicy.opening(settings.fetch_allow_private)
        self.checks: Mapping[str, Callable[[object], object]] = {
            "registryAddress": _registry_address,
            "manifestURI": self._manifest_uri,
            "contentHash": content_hash,
            "chainId": _chain_id,
            "rpcUrl": self._allowed_rpc_url,
            "fileName": _file_name,
            "share": _share,
            "callbackUrl": self._callback_url,
        }

    def read(self, fields: Mapping[str, object]) -> Submission:
        """Return the submission with the fields of a JSON object. Raise :class:`InvalidInput`, one entry per fault."""
        values, faults = self.check(fields)
        return self.submission(values, None, faults)

    def check(self, fields: Mapping[str, object]) -> tuple[dict[str, object], list[FieldFault]]:
        """Return the checked values of the known fields, and their faults."""
        faults: list[FieldFault] = []
        values: dict[str, object] = {}
        for name, check in self.checks.items():
            if name in fields:
                try:
                    values[name] = check(fields[name])
                except ValueError as error:
                    faults.append(FieldFault(name, str(error)))
        return values, faults

    def submission(
        self, values: Mapping[str, object], upload: Upload | None, faults: Sequence[FieldFault] = ()
    ) -> Submission:
        """Return the submission with checked ``values``, unless there are ``faults``.

        Raise :class:`InvalidInput` with one entry per fault.
        """
        found = list(faults)
        named = {fault.field for fault in found} | values.keys()
        found += [FieldFault(name, f"is required; {_EXPECTED[name]}") for name in REQUIRED if name not in named]
        if upload is None and not named & {"file", "contentHash"}:
            found.append(FieldFault("file", "is required, or contentHash instead of it"))
        if upload is not None and values.get("contentHash", upload.content_hash) != upload.content_hash:
            found.append(
                FieldFault("contentHash", "is not the SHA-256 of the file; expected no contentHash beside a file")
            )
        if values.get("share") and "callbackUrl" in values:
            found.append(FieldFault("callbackUrl", "cannot stand beside share, as the job may be another caller's"))
        if found:
            raise InvalidInput(found)
        rpc_url = _optional_text(values.get("rpcUrl"))
        return Submission(
            Subject(
                content_hash=upload.content_hash if upload else str(values["contentHash"]),
                manifest_uri=str(values["manifestURI"]),
                registry_address=str(values["registryAddress"]),
                rpc_url=None if rpc_url is None else redact_endpoint(rpc_url),
                endpoint_id=None if rpc_url is None else identify_endpoint(rpc_url),
                chain_id=_optional_integer(values.get("chainId")),
                file_name=upload.file_name if upload else _optional_text(values.get("fileName")),
            ),
            share=values.get("share") is True,
            callback_url=_optional_text(values.get("callbackUrl")),
        )

    def _manifest_uri(self, value: object) -> str:
        text = _text(value, "manifestURI")
        try:
            parse_manifest_uri(text, allow_private=self._fetch_policy)
        except FetchRefused as refused:
            raise ValueError(refused.message) from None
        return text

    def _callback_url(self, value: object) -> str:
        text = _text(value, "callbackUrl")
        if self._settings.webhook_secret is None:
            raise ValueError("webhooks are off here, as WEBHOOK_SECRET is not set; expected no callbackUrl")
        try:
            return str(parse_web_url(text, allow_private=self._fetch_policy))
        except FetchRefused as refused:
            raise ValueError(refused.message) from None

    def _allowed_rpc_url(self, value: object) -> str:
        text = _text(value, "rpcUrl")
        if not text:
            raise ValueError(f"is empty; {_EXPECTED['rpcUrl']}")
        try:
            return check_rpc_url(self._settings, text)
        except FetchRefused as refused:
            raise ValueError(refused.message) from None


def content_hash(value: object) -> str:
    """Return a SHA-256 in lower-case hex. Raise :class:`ValueError`."""
    text = _text(value, "contentHash")
    if not HASH.fullmatch(text):
        raise ValueError(_EXPECTED["contentHash"])
    return text.lower()


def _registry_address(value: object) -> str:
    text = _text(value, "registryAddress")
    if not ADDRESS.fullmatch(text):
        raise ValueError(_EXPECTED["registryAddress"])
    return text


def _chain_id(value: object) -> int:
    # Forms send text; in JSON 1, 1.0 and "1" are the same number (JSON Schema, section 6.1.1), but true is none.
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    text = str(number) if type(number) in (int, str) else ""
    if not _POSITIVE.fullmatch(text) or int(text) > MAX_CHAIN_ID:
        raise ValueError(_EXPECTED["chainId"])
    return int(text)


def _file_name(value: object) -> str:
    text = _text(value, "fileName")
    if not text:
        raise ValueError("is empty; expected a file's name, or no fileName at all")
    if fault := file_name_fault(text):
        raise ValueError(fault)
    return text


def _share(value: object) -> bool:
    # Forms send text.
    text = str(value) if isinstance(value, bool | str) else ""
    if not _TRUTH.fullmatch(text):
        raise ValueError(_EXPECTED["share"])
    return text.lower() == "true"


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string; {_EXPECTED.get(name, 'expected text')}")
    if not is_plain_text(value):
        raise ValueError("must be valid Unicode text, without NUL")
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else str(value)


def _optional_integer(value: object) -> int | None:
    return value if isinstance(value, int) else None


def is_plain_text(value: object, max_length: int | None = None) -> TypeGuard[str]:
    """Return whether ``value`` is text of at most ``max_length`` characters that UTF-8 and Postgres can hold.

    JSON can also spell NUL and halves of surrogate pairs, which are not plain.
    """
    if not isinstance(value, str) or "\0" in value or (max_length is not None and len(value) > max_length):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
