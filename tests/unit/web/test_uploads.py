"""The push parser of uploads: results, refusals, and independence of chunk borders."""

import hashlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from iidq.errors import FieldFault, InvalidInput
from iidq.web.request.header_fields import parse_header
from iidq.web.request.uploads import (
    MAX_FIELD_BYTES,
    MAX_FILE_NAME_LENGTH,
    MAX_OVERHEAD_BYTES,
    MAX_PARTS,
    Form,
    FormReader,
)

BOUNDARY = "frontier"


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    lines = (f"Content-Disposition: form-data; {disposition}", *headers)
    return f"--{BOUNDARY}\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def file_part(content: bytes, name: str = "photo.jpg") -> bytes:
    return part(f'name="file"; filename="{name}"', content, "Content-Type: application/octet-stream")


def short(value: str) -> str:
    if len(value) > 10:
        raise ValueError("expected at most 10 characters")
    return value


def reader(boundary: str = BOUNDARY, max_upload_bytes: int = 1 << 20) -> FormReader:
    content_type = parse_header(f"multipart/form-data; boundary={boundary}")
    return FormReader(content_type, {"manifestURI": short, "other": short}, max_upload_bytes=max_upload_bytes)


def read(body: bytes | Iterable[bytes], **options: Any) -> Form:
    form_reader = reader(**options)
    for chunk in [body] if isinstance(body, bytes) else body:
        form_reader.feed(chunk)
    return form_reader.finish()


def sha256(content: bytes) -> str:
    return "0x" + hashlib.sha256(content).hexdigest()


def messages(faulty: Form) -> dict[str, str]:
    return {fault.field: fault.message for fault in faulty.faults}


CONTENTS = [
    b"",
    b"x",
    b"\r\n",
    b"--",
    b"\r\n--front",
    b"\r\n--frontier",
    b"\r\n--frontierX",
    b"\r\n--frontier-x",
    b"\r" * 9,
]


@given(st.sampled_from(CONTENTS) | st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1), st.booleans())
def test_chunk_borders_and_field_order_do_not_matter(content: bytes, sizes: list[int], file_first: bool) -> None:
    """The digest covers the file's bytes, for any chunks and any position of the file."""
    content = content.replace(b"\r\n--frontier\r\n", b"").replace(b"\r\n--frontier--", b"")
    if f"\r\n--{BOUNDARY}".encode() in content:
        content = content.replace(b"frontier", b"frontiex")
    parts = [file_part(content), part('name="manifestURI"', b"ipfs://x")]
    body = form(*(parts if file_first else reversed(parts)))
    chunks, position, turn = [], 0, 0
    while position < len(body):
        chunks.append(body[position : position + sizes[turn % len(sizes)]])
        position += sizes[turn % len(sizes)]
        turn += 1
    result = read(chunks)
    assert result.values == {"manifestURI": "ipfs://x"}
    assert result.upload is not None
    assert (result.upload.content_hash, result.upload.size_bytes) == (sha256(content), len(content))
    assert result.upload.file_name == "photo.jpg"


# Pieces of forms, whole and broken.
PIECES = st.sampled_from(
    [
        *(
            b"--frontier",
            b"--frontier--",
            b"--frontie",
            b"\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"--",
            b"\r\n\r\n",
            b"\0",
            b"\xff",
        ),
        *(
            b"\r\n--frontier\r\n",
            b"\r\n--frontier--\r\n",
            b"\r\n--frontier \t\r\n",
            b"--frontier\t \r\n",
            b" ",
            b"ipfs://x",
            b"x" * 11,
            b"x" * 9000,
        ),
        *(
            b"Content-Disposition: form-data",
            b'; name="manifestURI"',
            b'; name="file"; filename="a.bin"',
            b"; name=other",
        ),
        *(
            b"; name=file",
            b'; filename="\xff"',
            b"; filename*=UTF-8''%E2%82%AC",
            b"; filename*=UTF-8''%00",
            b'; name="',
            b":",
        ),
        *(b"Content-Type: text/plain", b"Content-Transfer-Encoding: base64", b"X: y", b" folded", b"Bad Header: x"),
        part('name="manifestURI"', b"ipfs://x"),
        part('name="other"', b"y"),
        part('name="manifestURI"', b"x" * 11),
        file_part(b"content"),
        file_part(b"content")[:-9],
    ]
)


def outcome(chunks: Iterable[bytes]) -> object:
    """Return the form, or status and detail of the refusal, or the faults; any other exception fails the test."""
    try:
        return read(chunks, max_upload_bytes=5000)
    except HTTPException as refusal:
        return refusal.status_code, refusal.detail
    except InvalidInput as invalid:
        return invalid.faults


@given(st.lists(PIECES, max_size=14), st.booleans(), st.integers(1, 50))
def test_any_bytes_are_a_form_or_refused(pieces: list[bytes], closed: bool, size: int) -> None:
    """Any body is read or refused with 400 or 413, the same for any chunks."""
    body = b"".join([*pieces, b"\r\n--frontier--\r\n" if closed else b""])
    found = outcome([body])
    assert isinstance(found, Form | tuple)
    assert isinstance(found, Form) or isinstance(found[0], FieldFault) or found[0] in (400, 413)
    cut = outcome(body[start : start + size] for start in range(0, len(body), size))
    assert cut == found


PREAMBLES = ["", "\r\n", "This is a MIME message.\r\n", "\r\n--front\r\n", "--frontie\n\r\n", "-" * 200 + "\r\n"]
PREAMBLES += [f"--frontier{rest}\r\n" for rest in ("x foo", " x", "\t -- ", "-", "-x", "\r", "\n", "x\r\n--frontier x")]
BLANKS = st.text(" \t", max_size=5)


@given(st.sampled_from(PREAMBLES), st.lists(BLANKS, min_size=3, max_size=3), st.binary(max_size=30), st.integers(1, 99))
@example("", [" ", "", ""], b"", 99)
@example("a\r\n", [" " * 90, "\t", " "], b"", 1)
@example("--frontierx foo\r\n", ["", "", ""], b"", 99)
def test_a_preamble_blanks_and_an_epilogue_are_skipped(
    preamble: str, blanks: list[str], epilogue: bytes, size: int
) -> None:
    """Text around a form, and blanks after each boundary, are no part of any field (RFC 2046, section 5.1.1).

    Lines of a preamble may begin like the boundary.
    """
    plain = form(file_part(b"content"), part('name="manifestURI"', b"ipfs://x"))
    parts = plain.split(f"--{BOUNDARY}".encode())[1:]
    padded = [
        parts[0].replace(b"\r\n", f"{blanks[0]}\r\n".encode(), 1),
        parts[1].replace(b"\r\n", f"{blanks[1]}\r\n".encode(), 1),
        f"--{blanks[2]}\r\n".encode(),
    ]
    body = preamble.encode() + b"".join(f"--{BOUNDARY}".encode() + one for one in padded) + epilogue
    assert read(body[start : start + size] for start in range(0, len(body), size)) == read(plain)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=frontier",
        "Multipart/Form-Data; BOUNDARY=frontier",
        'multipart/form-data; charset=UTF-8; boundary="frontier"',
        "multipart/form-data;boundary=frontier  ;",
        "multipart/form-data; boundary=frontier \t",
    ],
)
def test_a_boundary_is_named_in_any_spelling(content_type: str) -> None:
    """A boundary is found for any case, quotes, order and blanks of the Content-Type."""
    form_reader = FormReader(parse_header(content_type), {}, max_upload_bytes=99)
    form_reader.feed(form(part('NAME="file"; FileName=a.txt', b"x").replace(b"Content-D", b"cONTENT-d")))
    assert form_reader.finish().upload is not None


@pytest.mark.parametrize(
    "body",
    [
        form(file_part(b"x")).replace(b"\r\n", b"\n"),
        form(part('name="file";\r\n filename="x"', b"x")),
        form(part('name="a"', b"x", "X-Long: " + "x" * 9000)),
        form(file_part(b"x")).replace(b"frontier", b"frontier x"),
        f"--{BOUNDARY}  --\r\n".encode(),
        form(file_part(b"x" * MAX_OVERHEAD_BYTES)).replace(b"\r\n", b"\n"),
    ],
)
def test_the_reply_to_a_broken_line_says_what_was_expected(body: bytes) -> None:
    """Lines ending in LF, folded headers and blanks within a boundary are refused with the expected form."""
    for size in (len(body), 1 if len(body) < 999 else 4096, 13):
        with pytest.raises(HTTPException) as refusal:
            read(body[start : start + size] for start in range(0, len(body), size))
        assert "expected lines that end in CR LF, and headers of one line" in refusal.value.detail


def test_blanks_behind_a_boundary_are_bounded() -> None:
    """Blanks after a boundary are bounded like all bytes outside the file."""
    bounded = reader()
    bounded.feed(f"--{BOUNDARY}".encode())
    with pytest.raises(HTTPException) as refusal:
        for _ in range(MAX_OVERHEAD_BYTES // 64 + 1):
            bounded.feed(b" " * 64)
    assert refusal.value.status_code == 413


def test_a_chosen_empty_file_counts_and_an_unchosen_one_does_not() -> None:
    """An empty file is a file; a browser's empty field (no name, no bytes) is none."""
    assert read(form(file_part(b""))).upload is not None
    assert read(form(file_part(b"", name=""))).upload is None
    unnamed = read(form(file_part(b"x", name=""))).upload
    assert unnamed is not None
    assert unnamed.file_name is None


@pytest.mark.parametrize(
    "name", ["../x", "a..b", "a/b", r"a\\b", r"a\b", "a%00b", "a\x00b", "a%0Ab", "x" * (MAX_FILE_NAME_LENGTH + 1)]
)
def test_a_dangerous_file_name_is_a_fault_of_the_file(name: str) -> None:
    """A name that could lead out of a folder, or forge a line, is a fault of the field ``file``."""
    assert messages(read(form(file_part(b"x", name)))).keys() == {"file"}


def test_a_file_sent_as_text_or_twice_is_a_fault() -> None:
    """A file sent as text is a fault, so a forgotten @ of curl verifies no path; a second file is a fault, too."""
    assert "must be sent as a file" in messages(read(form(part('name="file"', b"/tmp/x"))))["file"]
    assert "more than once" in messages(read(form(file_part(b"a"), file_part(b"b"))))["file"]


def test_faulty_fields_are_named_and_unknown_ones_ignored() -> None:
    """A wrong, repeated, too long, non-UTF-8 or file field is named; an unknown field may be anything."""
    assert messages(read(form(part('name="other"', b"x" * 11)))) == {"other": "expected at most 10 characters"}
    twice = part('name="other"', b"x")
    assert "more than once" in messages(read(form(twice, twice)))["other"]
    assert "may have" in messages(read(form(part('name="other"', b"x" * (MAX_FIELD_BYTES + 1)))))["other"]
    assert "UTF-8" in messages(read(form(part('name="other"', b"\xff"))))["other"]
    assert "plain field" in messages(read(form(part('name="other"; filename="x"', b"x"))))["other"]
    unknown = part('name="unknown"', b"\xff" * (MAX_FIELD_BYTES + 1))
    assert read(form(unknown, unknown)) == Form({}, None, ())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary at all",
        b"\r\n\r\n",
        b"--wrong\r\n",
        file_part(b"cut off"),
        file_part(b"cut off")[:-9],
        f"--{BOUNDARY}\r\n\r\nno headers\r\n--{BOUNDARY}--\r\n".encode(),
        f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(),
        form(part("nothing", b"x")),
        form(part('name="a"', b"x", 'Content-Disposition: form-data; name="b"')),
        form(part('name="a"', b"x", "Content-Transfer-Encoding: base64")),
        form(part('name="a"', b"x", "Bad Header: x")),
        form(part('name="a"', b"x", "X-Long: " + "x" * 9000)),
        form(part('name="a"', b"x", *(f"X-{n}: x" for n in range(9)))),
        form(*[part('name="a"', b"")] * (MAX_PARTS + 1)),
    ],
)
def test_a_malformed_body_is_told_so(body: bytes) -> None:
    """An incomplete or broken multipart form is 400."""
    with pytest.raises(HTTPException) as refusal:
        read(body)
    assert refusal.value.status_code == 400
    assert refusal.value.detail.startswith("Malformed request body")


@pytest.mark.parametrize("boundary", ['""', "x" * 71, '"ä"'])
def test_a_boundary_that_cannot_be_one_is_malformed(boundary: str) -> None:
    """RFC 2046 gives a boundary 1 to 70 ASCII characters."""
    with pytest.raises(HTTPException) as refusal:
        reader(boundary)
    assert refusal.value.status_code == 400


def test_the_file_limit_holds_to_the_byte() -> None:
    """A file of exactly the limit passes; a longer file is 413 before the form ends."""
    assert read(form(file_part(b"12345")), max_upload_bytes=5).upload is not None
    over = reader(max_upload_bytes=5)
    with pytest.raises(HTTPException) as refusal:
        over.feed(form(file_part(b"123456"))[:-16])
    assert refusal.value.status_code == 413


def test_what_is_not_the_file_is_bounded_too() -> None:
    """Unknown parts and the epilogue count against a bound."""
    for endless in (part('name="unknown"; filename="x"', b"")[:-2], form(file_part(b"x"))):
        bounded = reader()
        with pytest.raises(HTTPException) as refusal:
            for chunk in [endless, *[b"x" * 65536] * (MAX_OVERHEAD_BYTES // 65536 + 1)]:
                bounded.feed(chunk)
        assert refusal.value.status_code == 413


def test_a_known_fault_is_not_kept_back_for_the_whole_file() -> None:
    """Faults of small bodies are reported together; a known fault does not wait for a large rest."""
    small = read(form(part('name="manifestURI"', b"x" * 11), file_part(b"x"), part('name="other"', b"y" * 11)))
    assert messages(small).keys() == {"manifestURI", "other"}
    early = reader(max_upload_bytes=1 << 40)
    early.feed(part('name="manifestURI"', b"x" * 11) + file_part(b"")[:-2])
    with pytest.raises(InvalidInput) as refusal:
        for _ in range(MAX_OVERHEAD_BYTES // 65536 + 1):
            early.feed(b"x" * 65536)
    assert [fault.field for fault in refusal.value.faults] == ["manifestURI"]
