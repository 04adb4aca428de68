"""Read a multipart form and hash the file while streaming; the bytes are kept neither in memory nor on disk.

:class:`FormReader` is a push parser without I/O, which keeps only the small fields. Every bound is checked at the
exceeding byte.

After the first wrong field only :data:`MAX_OVERHEAD_BYTES` more are read, for further faults: a typing error need not
cost a gigabyte of upload.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.exceptions import HTTPException

from iidq.errors import FieldFault, InvalidInput
from iidq.provenance.digest import ContentDigest
from iidq.web.request.header_fields import HeaderValue, parse_disposition

MAX_FIELD_BYTES: Final = 8 * 1024
"""Largest value of a plain field."""
MAX_PARTS: Final = 64
MAX_PART_HEADERS: Final = 8
MAX_PART_HEADER_BYTES: Final = 8 * 1024
MAX_OVERHEAD_BYTES: Final = 1 << 20
"""Largest form without the file's bytes: fields, headers, boundaries, unknown parts."""
MAX_FILE_NAME_LENGTH: Final = 255
MAX_BOUNDARY_LENGTH: Final = 70
"""RFC 2046, section 5.1.1."""

FieldChecks = Mapping[str, Callable[[str], object]]
"""Field name → check that returns the field's value, or raises :class:`ValueError` with the expected form."""

_BROKEN: Final = (
    "a boundary or a part's header is broken: expected lines that end in CR LF, and headers of one line each with at "
    f"most {MAX_PART_HEADER_BYTES} bytes"
)
# The blanks after a delimiter if the rest of its line follows; and a beginning of them that further bytes may complete.
_DELIMITER_END = re.compile(rb"[ \t]*(?=\r\n)|(?=--)")
_DELIMITER_END_BEGUN = re.compile(rb"[ \t]*\r?|-")

# python-multipart logs bytes of every malformed body; the reply to the client is enough.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file, without its bytes."""

    content_hash: str
    """SHA-256: ``0x`` and 64 lower-case hex digits."""
    size_bytes: int
    """Size of the file."""
    file_name: str | None
    """Name as sent; None if empty."""


@dataclass(frozen=True, slots=True)
class Form:
    """A whole form."""

    values: dict[str, object]
    """Checked values by field name, without the fields that ``faults`` names."""
    upload: Upload | None
    """The file; None without one, or with a fault in its part."""
    faults: tuple[FieldFault, ...]
    """Faults found while reading."""


@dataclass(slots=True)
class _Part:
    name: str
    file_name: str | None
    is_upload: bool = False
    size_bytes: int = 0
    text: bytearray = field(default_factory=bytearray)


class FormReader:
    """Push parser of one ``multipart/form-data`` body (RFC 7578); ``checks`` are applied to each field at its end.

    Fields without a check are ignored.

    ``feed`` and ``finish`` raise :class:`HTTPException` 400 for a malformed body, 413 beyond a size limit, and
    :class:`InvalidInput` when too many bytes follow the first fault.
    """

    def __init__(self, content_type: HeaderValue, checks: FieldChecks, *, max_upload_bytes: int) -> None:
        boundary = content_type.parameters.get("boundary", "")
        if not 0 < len(boundary) <= MAX_BOUNDARY_LENGTH or not boundary.isascii():
            raise malformed(f"the Content-Type needs a boundary of 1 to {MAX_BOUNDARY_LENGTH} ASCII characters")
        self._checks = checks
        self._max_upload_bytes = max_upload_bytes
        self._digest = ContentDigest()
        self._values: dict[str, object] = {}
        self._seen: set[str] = set()
        self._uploaded: _Part | None = None
        self._faults: list[FieldFault] = []
        self._parts = 0
        self._part: _Part | None = None
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._disposition: bytes | None = None
        self._received_bytes = 0
        self._file_bytes = 0
        self._bytes_since_fault = 0
        self._ended = False
        self._delimiter = b"\r\n--" + boundary.encode()
        # RFC 2046, section 5.1.1: the first delimiter may lack its line break, a preamble before it is ignored, and
        # blanks may follow each delimiter. The parser accepts blanks only after later delimiters, and a preamble only
        # in one piece with the delimiter.
        self._preamble: bytes | None = b"\r\n"
        self._skipped_boundary = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER_BYTES,
        )

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        if self._faults:
            self._bytes_since_fault += len(chunk)
            if self._bytes_since_fault > MAX_OVERHEAD_BYTES:
                raise InvalidInput(self._faults)
        self._received_bytes += len(chunk)
        try:
            self._parser.write(chunk if self._preamble is None else self._behind_preamble(chunk))
        except FormParserError as error:
            raise malformed(_BROKEN) from error
        if self._received_bytes - self._file_bytes > MAX_OVERHEAD_BYTES:
            if self._skipped_boundary:
                raise malformed(_BROKEN)
            raise too_large(f"the form without its file may have {MAX_OVERHEAD_BYTES} bytes")

    def _behind_preamble(self, chunk: bytes) -> bytes:
        """Return the first delimiter without its blanks and the bytes behind it; empty until both have arrived."""
        assert self._preamble is not None
        received, end = self._preamble + chunk, 0
        while (start := received.find(self._delimiter, end)) >= 0:
            end = start + len(self._delimiter)
            if whole := _DELIMITER_END.match(received, end):
                self._preamble = None
                self._skipped_boundary = False
                return self._delimiter[2:] + received[whole.end() :]
            if _DELIMITER_END_BEGUN.fullmatch(received, end):
                # One blank is kept instead of all, so that the buffer does not grow.
                self._preamble = self._delimiter + received[end : end + 1] + received[end + 1 :].lstrip(b" \t")
                return b""
            # A line of the preamble begins like the delimiter.
            self._skipped_boundary = True
        self._preamble = received[end:][-len(self._delimiter) :]
        return b""

    def finish(self) -> Form:
        """Return the form after the whole body was fed."""
        if not self._ended:
            raise malformed(_BROKEN if self._skipped_boundary else "it ends before its closing boundary")
        upload = None
        if (part := self._uploaded) is not None:
            upload = Upload(self._digest.content_hash(), part.size_bytes, part.file_name or None)
        return Form(self._values, upload, tuple(self._faults))

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise malformed(f"at most {MAX_PARTS} parts are read")
        self._disposition = None
        self._part = None

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        name, value = bytes(self._header_name).lower(), bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()
        if name == b"content-disposition":
            if self._disposition is not None:
                raise malformed("a part has two Content-Disposition headers")
            self._disposition = value
        elif name == b"content-transfer-encoding" and value.strip().lower() not in (b"binary", b"8bit", b"7bit"):
            raise malformed("parts must be sent as they are, without a Content-Transfer-Encoding")

    def _on_headers_finished(self) -> None:
        if self._disposition is None:
            raise malformed("a part has no Content-Disposition")
        try:
            name, file_name = parse_disposition(self._disposition)
        except ValueError as error:
            raise malformed("a part's Content-Disposition is not form-data with a name, in UTF-8") from error
        self._part = _Part(name, file_name)
        if name == "file":
            self._begin_file(self._part)

    def _begin_file(self, part: _Part) -> None:
        if part.file_name is None:
            self._faults.append(FieldFault("file", "must be sent as a file, with a file name (curl: -F file=@PATH)"))
        elif "file" in self._seen:
            self._faults.append(FieldFault("file", "is given more than once"))
        elif fault := file_name_fault(part.file_name):
            self._faults.append(FieldFault("file", fault))
        else:
            part.is_upload = True
        self._seen.add("file")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part is None:
            return
        part.size_bytes += end - start
        if part.is_upload:
            self._file_bytes += end - start
            if part.size_bytes > self._max_upload_bytes:
                raise too_large(f"the file may have {self._max_upload_bytes} bytes")
            if not self._faults:
                self._digest.update(memoryview(data)[start:end])
        elif part.size_bytes <= MAX_FIELD_BYTES:
            part.text += data[start:end]

    def _on_part_end(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        if part.is_upload:
            # A browser sends an empty name and no bytes if no file was chosen.
            if part.file_name or part.size_bytes:
                self._uploaded = part
        elif part.name in self._checks:
            self._end_field(part)

    def _end_field(self, part: _Part) -> None:
        try:
            self._values[part.name] = self._checked_value(part)
        except UnicodeDecodeError:
            self._faults.append(FieldFault(part.name, "must be UTF-8 text"))
        except ValueError as error:
            self._faults.append(FieldFault(part.name, str(error)))
        self._seen.add(part.name)

    def _checked_value(self, part: _Part) -> object:
        if part.name in self._seen:
            raise ValueError("is given more than once")
        if part.file_name is not None:
            raise ValueError("must be a plain field, not a file")
        if part.size_bytes > MAX_FIELD_BYTES:
            raise ValueError(f"may have {MAX_FIELD_BYTES} bytes")
        return self._checks[part.name](part.text.decode())

    def _on_end(self) -> None:
        self._ended = True


def file_name_fault(name: str) -> str | None:
    """Return the fault of a file's name, or None."""
    if (
        ".." in name
        or "/" in name
        or "\\" in name
        or any(ord(character) < 32 or character == "\x7f" for character in name)
    ):
        return 'has a name that must not contain "..", "/", "\\" or control characters'
    if len(name) > MAX_FILE_NAME_LENGTH:
        return f"has a name that may have {MAX_FILE_NAME_LENGTH} characters"
    return None


def malformed(fault: str) -> HTTPException:
    """Return 400 for a body that does not match its Content-Type."""
    return HTTPException(400, f"Malformed request body: {fault}")


def too_large(limit: str) -> HTTPException:
    """Return 413, which names the limit."""
    return HTTPException(413, f"Payload Too Large: {limit}")
