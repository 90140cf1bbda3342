"""The samples of a shard are those of the webdataset library; what is damaged or ambiguous is named."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vision_mtl.core.errors import UserError
from vision_mtl.data.shard_index import index_shard, is_hidden, split_name

PARTS = st.text("ab.-_ é\n", min_size=1, max_size=4).filter(lambda part: part not in (".", ".."))
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


def write(path: Path, names: list[str]) -> Path:
    """Write a tar file whose members contain their number."""
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = len(str(number))
            tar.addfile(info, io.BytesIO(str(number).encode()))
    return path


def slow_samples(names: list[str]) -> list[tuple[str, dict[str, int]]]:
    """Group members as the library does: character by character, a new sample at each new key."""
    samples: list[tuple[str, dict[str, int]]] = []
    for number, name in enumerate(names):
        slash = name.rfind("/")
        dot = name.find(".", slash + 1)
        if dot < 0:
            continue
        key, suffix = name[:dot], name[dot + 1 :].lower()
        if not samples or samples[-1][0] != key:
            samples.append((key, {}))
        if suffix in samples[-1][1]:
            raise ValueError("duplicate file name in tar file")  # as the library
        samples[-1][1][suffix] = number
    return samples


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, min_size=1, max_size=8))
def test_samples_are_those_of_the_library(names: list[str], tmp_path: Path) -> None:
    names = [name for name in names if not is_hidden(name)]
    index = index_shard(write(tmp_path / "a.tar", names))
    read = {key: {s[1:]: int(_content(place)) for s, place in own.items()} for key, own in index.samples.items()}
    try:
        expected = slow_samples(names)
    except ValueError:
        assert index.repeated
        return
    keys = [key for key, _ in expected]
    assert read == {key: members for key, members in expected if keys.count(key) == 1}
    assert index.repeated.keys() == {key for key in keys if keys.count(key) > 1}


def _content(place: tuple[Path, int, int]) -> bytes:
    path, offset, size = place
    return path.read_bytes()[offset : offset + size]


@pytest.mark.parametrize(
    ("name", "key", "suffix"),
    [
        ("a.b/0001.Depth.PNG", "a.b/0001", ".depth.png"),
        ("./0001.jpg", "0001", ".jpg"),
        ("a/b.c.d/x.tar.gz", "a/b.c.d/x", ".tar.gz"),
        ("a\nb.cls", "a\nb", ".cls"),
    ],
)
def test_the_key_ends_at_the_first_dot_of_the_file_name(name: str, key: str, suffix: str) -> None:
    assert split_name(name) == (key, suffix) and not is_hidden(name)


def test_a_name_without_a_dot_is_no_sample() -> None:
    assert split_name("folder.d/README") is None


@pytest.mark.parametrize(
    "name", ["._a.jpg", "x/._a.jpg", ".git/a.jpg", "__meta__", "__meta__/a.jpg", "__MACOSX/a.jpg", "x/__MACOSX/a.jpg"]
)
def test_hidden_files_and_metadata(name: str) -> None:
    assert is_hidden(name)


@pytest.mark.parametrize("name", ["a_.jpg", "./a.jpg", "../a.jpg", "x/__meta__/a.jpg", "__meta/a.jpg", "__a__.jpg"])
def test_names_that_are_not_hidden(name: str) -> None:
    assert not is_hidden(name)


def test_keys_that_repeat_are_no_samples(tmp_path: Path) -> None:
    index = index_shard(write(tmp_path / "a.tar", ["a.jpg", "a.cls", "b.jpg", "b.JPG", "c.jpg", "._a.jpg", "a.txt"]))
    assert index.samples.keys() == {"c"} and index.hidden == ["._a.jpg"]
    assert index.repeated == {"a": ["a.jpg", "a.cls", "a.txt"], "b": ["b.jpg", "b.JPG"]}


def test_what_lies_between_members_does_not_divide_a_sample(tmp_path: Path) -> None:
    index = index_shard(write(tmp_path / "a.tar", ["a.jpg", "._a.cls", "README", "a.cls"]))
    assert index.samples["a"].keys() == {".jpg", ".cls"} and not index.repeated


def test_links_and_folders(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("x.d", tarfile.DIRTYPE), ("x.d/a.jpg", tarfile.SYMTYPE), ("x.d/b.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "elsewhere"
            tar.addfile(info)
    index = index_shard(tmp_path / "a.tar")
    assert index.links == ["x.d/a.jpg", "x.d/b.jpg"] and not index.samples


def test_damage_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    names = [f"{n}.jpg" for n in range(6)]
    path = write(tmp_path / "a.tar", names)
    whole, end = path.read_bytes(), 6 * 1024
    path.write_bytes(whole[:3072] + b"\xff" * 20 + whole[3092:])
    with pytest.raises(UserError, match="there is no valid header at byte 3,072"):
        index_shard(path)
    path.write_bytes(whole + whole)
    with pytest.raises(UserError, match=r"more follows its end mark at byte 6,144, as if tar files had been joined"):
        index_shard(path)
    path.write_bytes(whole[: 3072 + 100])
    with pytest.raises(UserError, match="is damaged"):
        index_shard(path)
    path.write_bytes(whole[: 3072 + 513])
    with pytest.raises(UserError, match="unexpected end of data"):
        index_shard(path)
    path.write_bytes(whole[:end])
    index = index_shard(path)
    assert index.is_open and len(index.samples) == 6
    path.write_bytes(whole)
    assert not index_shard(path).is_open


@pytest.mark.parametrize("cut", range(0, 4096, 256))
def test_a_cut_shard_is_refused_or_reported(cut: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [f"{n}.jpg" for n in range(4)])
    path.write_bytes(path.read_bytes()[:cut])
    try:
        assert index_shard(path).is_open
    except UserError as error:
        assert str(path) in str(error)


def test_other_files_and_folders_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"write 'wds/.*/\*\.tar'"):
        index_shard(tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w:xz"):
        pass
    with pytest.raises(UserError, match="compressed: unpack it with unxz"):
        index_shard(tmp_path / "a.tar")
