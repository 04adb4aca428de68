"""What a client asks to be verified: the fields of a form or JSON body, checked, all faults at once. Pure."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

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
from iidq.web.request.plain_text import is_plain_text
from iidq.web.request.uploads import MAX_FILE_NAME_LENGTH, Upload, file_name_fault

_POSITIVE = re.compile(r"[1-9][0-9]{0,15}")
_TRUTH = re.compile(r"[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]")
MAX_CHAIN_ID: Final = 2**53 - 1
"""The largest integer that JSON readers agree on."""

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
        "description": "Which of the configured chains; without it the default one.",
    },
    "rpcUrl": {
        "type": "string",
        "format": "rpc-url",
        "minLength": 1,
        "description": "One of the endpoints that this service is configured with, or allows (`RPC_ALLOWED_URLS`).",
    },
    "fileName": {
        "type": "string",
        "format": "file-name",
        "minLength": 1,
        "maxLength": MAX_FILE_NAME_LENGTH,
        "description": "What the file is called in a proof, where only its hash is sent.",
    },
    "share": {
        "type": "boolean",
        "default": False,
        "description": "Whether an equal question that still waits or runs may be this one's answer, too.",
    },
    "callbackUrl": {
        "type": "string",
        "format": "callback-url",
        "maxLength": MAX_URI_CHARACTERS,
        "description": "Where the job's end is told, as a signed webhook: the http(s) URL of a public host on the "
        "scheme's own port. Not beside `share`, and only where the service has a `WEBHOOK_SECRET`.",
    },
}
"""What :class:`SubmissionRules` checks, told to clients; ``/api/docs.json`` is made of it."""

TEXT_PATTERNS: Final = {"chainId": f"^{_POSITIVE.pattern}$", "share": f"^({_TRUTH.pattern})$"}
"""Fields that are no text, but are also taken as text in JSON."""

REQUIRED: Final = ("registryAddress", "manifestURI")
"""Besides ``file`` or ``contentHash``."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked request."""

    subject: Subject
    """What to verify."""
    share: bool = False
    """Whether an equal job that still waits or runs may answer this request too."""
    callback_url: str | None = None
    """Where the webhook for the job's end goes; None sends none."""

    def as_job(self, job_type: JobType, key: IdempotencyKey | None = None) -> NewJob:
        """The job that answers this request, known under ``key``, or under the question itself if it may be shared."""
        if key is None and self.share:
            question = self.fingerprint(job_type, with_file_name=False)
            key = IdempotencyKey(SHARED, question.hex(), question)
        return NewJob(
            type=job_type,
            subject=self.subject,
            key=key,
            trace_context=traces.current(),
            callback_url=self.callback_url,
        )

    def fingerprint(self, job_type: JobType, *, with_file_name: bool = True) -> bytes:
        """SHA-256 of what is asked: equal for equal requests, whichever way the file or its hash was sent."""
        subject = self.subject
        fields = [
            job_type.value,
            subject.content_hash,
            subject.manifest_uri,
            subject.registry_address.lower(),
            # Two endpoints can look alike without their credentials.
            subject.endpoint_id,
            subject.chain_id,
            *([subject.file_name] if with_file_name else []),
            *([] if self.callback_url is None else [self.callback_url]),
        ]
        return hashlib.sha256(json.dumps(fields).encode()).digest()


class SubmissionRules:
    """What each field must look like under these settings."""

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

    def read(
        self, fields: Mapping[str, object], upload: Upload | None = None, faults: Sequence[FieldFault] = ()
    ) -> Submission:
        """Check all fields; unknown ones are ignored. ``faults`` are those that the body's reader found.

        Raises :class:`InvalidInput` with one entry per fault.
        """
        found = list(faults)
        values: dict[str, object] = {}
        for name, check in self.checks.items():
            if name in fields:
                try:
                    values[name] = check(fields[name])
                except ValueError as error:
                    found.append(FieldFault(name, str(error)))
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
    """A SHA-256 in hex, any case, as it is stored: lower case. Raises :class:`ValueError`."""
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
    # A form has only text; in JSON 1, 1.0 and "1" are the same number (JSON Schema, section 6.1.1), but not true.
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
    # A form has only text.
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
