"""The files of `iidq verify`, and the manifest URI of each."""

from pathlib import Path

import pytest

from iidq.cli.verification.input_files import (
    InputFile,
    ManifestList,
    ManifestTemplate,
    UnusableArguments,
    chain_account,
    find_files,
    is_glob,
)

HASH = "0x" + "ab" * 32
ADDRESS = "0x" + "Cd" * 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working folder with content files, and with other files."""
    for name in (
        *("b.jpg", "a.jpg", "[x].jpg", "sub/a.jpg", "sub/deep/c é.png"),
        *(".hidden", ".git/x", "a.jpg.manifest.json"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def below(files: list[InputFile]) -> list[str]:
    return [file.below for file in files]


def test_a_folder_is_walked_in_order(folder: Path) -> None:
    """A folder yields every file below once, without hidden files and without the manifests of `iidq register`."""
    expected = ["[x].jpg", "a.jpg", "b.jpg", "sub/a.jpg", "sub/deep/c é.png"]
    assert below(find_files([str(folder)], recursive=True)) == expected
    assert below(find_files([".", "a.jpg", str(folder / "b.jpg")], recursive=True)) == expected


def test_a_link_to_a_folder_is_no_way_out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Links to folders are not followed, so a loop of links ends."""
    (folder / "loop").symlink_to(folder)
    assert len(find_files(["."], recursive=True)) == 5


def test_patterns_that_no_shell_expanded_are_expanded(folder: Path) -> None:
    """`*` and `**` work as in shells; a file with such a name is taken literally."""
    assert below(find_files(["*.jpg"], recursive=False)) == ["[x].jpg", "a.jpg", "b.jpg"]
    assert below(find_files(["**/*.png"], recursive=False)) == ["sub/deep/c é.png"]
    assert below(find_files(["[x].jpg"], recursive=False)) == ["[x].jpg"]
    assert (is_glob("*.jpg"), is_glob("[x].jpg"), is_glob("a.jpg")) == (True, False, False)


def test_what_names_no_file_is_told(folder: Path) -> None:
    """A pattern or folder without files is refused at once; a missing file keeps its place among the others."""
    (folder / "empty").mkdir()
    for argument in ("*.gif", "empty"):
        with pytest.raises(UnusableArguments, match="there is no file"):
            find_files([argument], recursive=True)
    assert below(find_files(["none.jpg"], recursive=False)) == ["none.jpg"]


def test_a_template_names_each_manifest() -> None:
    """A file's name is percent-encoded in the manifest URI and stays a single part of the URI."""
    file = InputFile(Path("x/sub dir/c é?.tar.gz"), "shown", "sub dir/c é?.tar.gz")
    template = ManifestTemplate("https://h/{path}/{name}/{stem}/{hash}")
    assert template.uri_for(file, HASH) == (
        f"https://h/sub%20dir/c%20%C3%A9%3F.tar.gz/c%20%C3%A9%3F.tar.gz/c%20%C3%A9%3F.tar/{HASH}"
    )
    assert ManifestTemplate("ipfs://x").uri_for(file, HASH) == "ipfs://x"
    hostile = InputFile(Path("{hash}"), "{hash}", "{hash}")
    assert ManifestTemplate("{name}").uri_for(hostile, HASH) == "%7Bhash%7D"
    with pytest.raises(UnusableArguments, match=r"\{digest\}; expected \{name\}, \{stem\}, \{path\}, \{hash\}"):
        ManifestTemplate("https://h/{digest}")


def test_a_list_names_each_manifest(folder: Path) -> None:
    """Paths in a list start from the list's folder, in any working folder; header, blanks and byte order mark do no
    harm.
    """
    listed = folder / "sub" / "list.csv"
    listed.write_text('\ufefffile,manifest\n\na.jpg, ipfs://1\n"deep/c é.png","https://h/a,b"\n', encoding="utf-8")
    manifests = ManifestList(listed)
    assert [manifests.uri_for(file, HASH) for file in manifests.files] == ["ipfs://1", "https://h/a,b"]
    [same] = find_files(["sub/a.jpg"], recursive=False)
    assert manifests.uri_for(same, HASH) == "ipfs://1"
    [other] = find_files(["a.jpg"], recursive=False)
    with pytest.raises(UnusableArguments, match=r"list\.csv has no line for a\.jpg"):
        manifests.uri_for(other, HASH)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "names no file"),
        (b"file,manifest\n", "names no file"),
        (b"a.jpg\n", r"line 1: expected file,manifest"),
        (b"a.jpg,x\nb.jpg,\n", r"line 2: expected file,manifest"),
        (b"\xff,x\n", "not CSV in UTF-8"),
        (b'"' + b"x" * 200_000, "not CSV"),
    ],
)
def test_a_list_that_is_none_is_told(tmp_path: Path, body: bytes, said: str) -> None:
    """A bad list is refused with the line and the expected content."""
    listed = tmp_path / "list.csv"
    listed.write_bytes(body)
    with pytest.raises(UnusableArguments, match=said):
        ManifestList(listed)


def test_a_registry_may_name_its_chain() -> None:
    """A registry is an address, alone or with its chain (CAIP-10); anything else is refused with the expected form."""
    assert chain_account(ADDRESS) == (None, ADDRESS)
    assert chain_account(f"eip155:8453:{ADDRESS}") == (8453, ADDRESS)
    for wrong in ("0x1", f"eip155::{ADDRESS}", f"solana:1:{ADDRESS}", f":{ADDRESS}", f"eip155:x:{ADDRESS}"):
        with pytest.raises(UnusableArguments, match="expected 0x and 40 hex digits"):
            chain_account(wrong)
