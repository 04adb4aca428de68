"""Content-Type and Content-Disposition, as clients really send them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.web.request.header_fields import Disposition, parse_disposition, parse_header


@pytest.mark.parametrize(
    ("header", "file_name"),
    [
        (b'form-data; name="file"', None),
        (b'form-data; name="file"; filename="photo.jpg"', "photo.jpg"),
        (b"form-data; name=file; filename=photo.jpg", "photo.jpg"),
        (b'Form-Data ; Name="file" ; FileName="photo.jpg"', "photo.jpg"),
        (b'form-data; name="file"; filename=""', ""),
        (b'form-data; name="file"; filename="a;b=c.txt"', "a;b=c.txt"),
        ('form-data; name="file"; filename="größe.txt"'.encode(), "größe.txt"),
        (rb'form-data; name="file"; filename="say \"hi\".txt"', 'say "hi".txt'),
        (b'form-data; name="file"; filename="say %22hi%22.txt"', 'say "hi".txt'),
        (b'form-data; name="file"; filename="a%00b"', "a\x00b"),
        (b'form-data; name="file"; filename="100%.txt"', "100%.txt"),
        (rb'form-data; name="file"; filename="C:\dir\name.txt"', r"C:\dir\name.txt"),
        (rb'form-data; name="file"; filename="C:\\dir"', r"C:\dir"),
        (rb'form-data; filename="ends in \"; name="file"', "ends in \\"),
        (b'form-data; name="file"; filename="x"; filename*=UTF-8\'\'a%2Fb', "a/b"),
        (b"form-data; name=\"file\"; filename*=iso-8859-1'en'%A3", "£"),
    ],
)
def test_a_file_name_is_read_as_it_was_meant(header: bytes, file_name: str | None) -> None:
    """Every spelling that clients use gives the name the file has, with its separators left in."""
    assert parse_disposition(header) == Disposition("file", file_name)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"form-data",
        b'attachment; name="file"',
        b'form-data; filename="x"',
        b'form-data; name="a"; name="b"',
        b'form-data; name="a',
        b'form-data; name="a"; filename="\xff"',
        b"form-data; name=a; filename*=utf-7''x",
        b"form-data; name=a; filename*=plain",
        b"form-data; name=a; filename*=UTF-8''%ff",
    ],
)
def test_what_is_no_form_part_is_refused(header: bytes) -> None:
    """A header without a readable name is an error, never a guess."""
    with pytest.raises(ValueError, match=r"."):
        parse_disposition(header)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\%'), max_size=60))
def test_any_plain_name_survives_the_header(name: str) -> None:
    """Whatever stands between the quotes comes out unchanged."""
    assert parse_disposition(f'form-data; name="file"; filename="{name}"'.encode()).file_name == name


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_an_error(header: bytes) -> None:
    """No header, however broken, does anything but parse or raise ValueError."""
    try:
        value, parameters = parse_header(header.decode("latin-1"))
    except ValueError:
        return
    assert value == value.strip(" \t")
    assert all(name == name.lower() for name in parameters)
