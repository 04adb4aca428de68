"""Content-Type and Content-Disposition as sent by clients, and ``Prefer`` by RFC 7240."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.web.request.header_fields import (
    MAX_WAIT_SECONDS,
    NO_PREFERENCES,
    Disposition,
    Preferences,
    parse_disposition,
    parse_header,
    parse_prefer,
)


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
    """Every spelling used by clients gives the file's name, separators included."""
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
    """A plain name between the quotes of the header is read unchanged."""
    assert parse_disposition(f'form-data; name="file"; filename="{name}"'.encode()).file_name == name


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_an_error(header: bytes) -> None:
    """Any header is parsed or raises ValueError, and no other error."""
    try:
        value, parameters = parse_header(header.decode("latin-1"))
    except ValueError:
        return
    assert value == value.strip(" \t")
    assert all(name == name.lower() for name in parameters)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], NO_PREFERENCES),
        ([""], NO_PREFERENCES),
        (["respond-async"], Preferences(None, True)),
        (["Respond-Async"], Preferences(None, True)),
        (["wait=10"], Preferences(10, False)),
        (["WAIT = 10"], Preferences(10, False)),
        (['wait="10"'], Preferences(10, False)),
        (["respond-async, wait=10"], Preferences(10, True)),
        (["respond-async", "wait=10"], Preferences(10, True)),
        (['return=minimal; foo="some, thing", wait=5'], Preferences(5, False)),
        (["wait=5; x=1;, ,respond-async"], Preferences(5, True)),
        (["wait=5, wait=9"], Preferences(5, False)),
        (["wait=0"], Preferences(0, False)),
        (["wait=100000"], Preferences(MAX_WAIT_SECONDS, False)),
    ],
)
def test_preferences_are_read_as_the_rfc_says(fields: list[str], expected: Preferences) -> None:
    """Preferences are read by RFC 7240: names in any case, values quoted or not, several fields, the first of two; long
    waits are lowered.
    """
    assert parse_prefer(fields) == expected


@pytest.mark.parametrize(
    "text", ["wait", "wait=", "wait=-1", "wait=1.5", "wait=ten", "wait=" + "9" * 30, "respond-async=no", "(", '"wait=1']
)
def test_what_makes_no_sense_is_ignored(text: str) -> None:
    """A bad preference is ignored, and the next preference still counts."""
    assert parse_prefer([text]) == NO_PREFERENCES
    assert parse_prefer([f"{text}, respond-async"]).respond_async == (text != "respond-async=no")


@pytest.mark.parametrize(
    ("preferences", "applied"),
    [(NO_PREFERENCES, ""), (Preferences(60, False), "wait=60"), (Preferences(0, True), "respond-async, wait=0")],
)
def test_what_was_applied_is_told(preferences: Preferences, applied: str) -> None:
    """The applied preferences are returned in the form of the request, with the values in effect."""
    assert preferences.applied == applied
    assert parse_prefer([applied]) == preferences


@pytest.mark.parametrize("text", ["a" + ";" * 1000 + '"', "a" + "; " * 500 + '"', "a" + " " * 1000 + '"', 'a="' * 300])
def test_hostile_texts_are_read_as_quickly(text: str) -> None:
    """A hostile text is read in bounded time."""
    assert parse_prefer([text]) == NO_PREFERENCES


@given(st.lists(st.text(st.characters(codec="latin-1"), max_size=200), max_size=4))
def test_any_text_is_read_in_bounds(fields: list[str]) -> None:
    """Any text gives a wait within bounds, and raises no error."""
    wait = parse_prefer(fields).wait_seconds
    assert wait is None or 0 <= wait <= MAX_WAIT_SECONDS
