"""Which image files are found below a folder: each once, past loops and what systems leave, and what is skipped."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.data.files import find_file, find_images, listed_path, picture_key
from vision_mtl.data.findings import Finding, Findings
from vision_mtl.data.skipped import skipped_findings
from vision_mtl.inference.image_files import find_inputs

NFC, NFD = "\u00f6", "o\u0308"


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes empty files below a folder: nothing is decoded here."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).write_bytes(name.encode())
        return tmp_path / "set"

    return make


def told(folder: Path | str, severity: str) -> list[Finding]:
    return [f for f in skipped_findings("x", find_images(str(folder)).walk) if f.severity == severity]


def test_what_systems_leave_is_skipped_and_counted(tree: Callable[..., Path]) -> None:
    names = [
        *("@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "cat/@eaDir/b.jpg", "__MACOSX/cat/._1.png", "#recycle/old.png"),
        *("$RECYCLE.BIN/x.png", "lost+found/x.png", ".thumbnails/x.png", "cat/.ipynb_checkpoints/1-checkpoint.png"),
        *("cat/._1.png", "cat/.hidden.png", "cat/Thumbs.db", "cat/.DS_Store", "cat/desktop.ini"),
    ]
    folder = tree("cat/1.png", *names)
    assert find_images(str(folder)).names == ["cat/1.png"]
    (note,) = told(folder, "note")
    for words in ("2 @eaDir", "1 __MACOSX", "1 ._*", "1 #recycle", "1 Thumbs.db", "1 .ipynb_checkpoints", "1 hidden"):
        assert words in note.text
    assert note.images == len(names) and not told(folder, "warning")
    assert [file.name for file in find_inputs([str(folder)])] == [f"{folder}/cat/1.png"]
    assert find_images(f"{folder}/**/*").names == ["cat/1.png"]


@pytest.mark.parametrize(
    ("suffix", "advice"),
    [
        (".HEIC", "magick"),
        (".heif", "magick"),
        (".CR2", "raw photographs"),
        (".NEF", "raw photographs"),
        (".ARW", "raw photographs"),
        (".DNG", "raw photographs"),
        (".dcm", "16-bit"),
        (".svg", "Inkscape"),
        (".PSD", "Export"),
        (".npy", "Save the arrays"),
        (".MOV", "ffmpeg"),
    ],
)
def test_pictures_of_formats_that_are_not_read_are_a_warning(
    tree: Callable[..., Path], suffix: str, advice: str
) -> None:
    folder = tree("cat/1.png", f"bird/1{suffix}", f"bird/2{suffix}", "notes.txt", "LICENSE")
    (warning,) = told(folder, "warning")
    assert f"skipped 2 {suffix} " in warning.text and "bird" in warning.text and advice in warning.advice
    assert warning.images == 2
    findings = Findings()
    assert [f.name for f in find_inputs([str(folder)], findings)] == [f"{folder}/cat/1.png"]
    assert [f"2 {suffix} " in str(found) for found in findings.of("warning")] == [True]
    (note,) = told(folder, "note")
    assert "1 .txt" in note.text and "1 without suffix" in note.text


def test_a_folder_without_images_says_what_it_holds(tree: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"no image in .*none of its 2 files.*It holds: 2 \.HEIC, 1 @eaDir"):
        find_images(str(tree("1.HEIC", "2.HEIC", "@eaDir/1.jpg")))


def test_a_loop_ends_and_links_upward_are_not_followed(tree: Callable[..., Path]) -> None:
    folder = tree("cat/1.png", "dog/2.png", "../outside/3.png")
    for link, target in (("cat/up", ".."), ("self", folder), ("dog/root", "/"), ("dog/me", "me"), ("above", "..")):
        (folder / link).symlink_to(target)
    (folder / "ext").symlink_to(folder.parent / "outside")
    (folder.parent / "outside/back").symlink_to(folder)
    found = find_images(str(folder))
    assert found.names == ["cat/1.png", "dog/2.png", "ext/3.png"]
    assert sorted(found.walk.loops) == ["above", "cat/up", "dog/root", "ext/back", "self"]
    assert "dog/root" in told(folder, "note")[-1].text
    assert find_images(f"{folder}/**/*.png").names == found.names
    assert [file.inner for file in find_inputs([str(folder)])] == found.names


def test_a_folder_is_read_once_under_its_own_name_or_its_first_link(tree: Callable[..., Path]) -> None:
    folder = tree("z/1.png", "z/deep/2.png", "../outside/3.png")
    (folder / "a").symlink_to("z")
    for link in ("m", "c", "z/n"):
        (folder / link).symlink_to(folder.parent / "outside")
    found = find_images(str(folder))
    assert found.names == ["c/3.png", "z/1.png", "z/deep/2.png"]
    assert found.walk.again == [("a", "z"), ("m", "c"), ("z/n", "c")]
    assert list(found.walk.other_names()) == [
        ("a/1.png", "z/1.png"),
        ("a/deep/2.png", "z/deep/2.png"),
        ("m/3.png", "c/3.png"),
        ("z/n/3.png", "c/3.png"),
    ]


def test_many_links_between_folders_do_not_multiply(tree: Callable[..., Path]) -> None:
    folder = tree(*(f"{n:02d}/{n}.png" for n in range(20)))
    for n in range(20):
        for other in range(20):
            if other != n:
                (folder / f"{n:02d}" / f"to{other:02d}").symlink_to(folder / f"{other:02d}")
    assert len(find_images(str(folder)).names) == 20


def test_globs_match_as_in_a_shell(tree: Callable[..., Path]) -> None:
    folder = tree("a/1.png", "a/b/2.png", "a/b/3.jpg", "c1/4.png", "c2/5.png", "c2/x.HEIC", "6.png")
    (folder / "link").symlink_to("a")
    expected = {
        "*.png": ["6.png"],
        "**/*.png": ["6.png", "a/1.png", "a/b/2.png", "c1/4.png", "c2/5.png"],
        "c[12]/*": ["c1/4.png", "c2/5.png"],
        "c?": ["c1/4.png", "c2/5.png"],
        "*/b": ["a/b/2.png", "a/b/3.jpg"],
        "li*/1.png": ["link/1.png"],
        "**/link/*.png": ["link/1.png"],
        "a/**": ["1.png", "b/2.png", "b/3.jpg"],
    }
    for pattern, names in expected.items():
        assert find_images(f"{folder}/{pattern}").names == names, pattern
    assert not find_images(f"{folder}/**/*.png").walk.skipped
    assert find_images(f"{folder}/c2/*").walk.skipped == {("", ".HEIC"): 1}


def test_a_pipe_is_not_opened_and_a_link_to_nothing_is_an_unreadable_image(tree: Callable[..., Path]) -> None:
    folder = tree("1.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("/nowhere/x.png")
    found = find_images(str(folder))
    assert found.names == ["1.png", "gone.png"] and found.walk.skipped == {("", "no regular file"): 1}


def test_a_folder_that_cannot_be_opened_is_an_error(tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, scandir = tree("a/1.png", "b/2.png"), os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (error,) = told(folder, "error")
    assert "'b' cannot be opened (Permission denied)" in error.text
    with pytest.raises(UserError, match="cannot be opened"):
        from vision_mtl.data.options import Data
        from vision_mtl.data.pool import build_pool

        build_pool(Data(unlabelled=[f"images/{folder}"], root=str(folder)), {}, image_size=(8, 8))


def test_paths_are_absolute_and_as_listed(tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree("real/1.png", "elsewhere/deep/2.png")
    (folder / "link").symlink_to("real")
    (folder / "far").symlink_to("elsewhere/deep")
    monkeypatch.chdir(folder)
    assert find_images("link").files == [folder / "link/1.png"]
    assert find_images("real/../link").files == [folder / "link/1.png"]
    assert listed_path(Path("far/../deep/2.png")) == folder / "far/../deep/2.png"  # `..` leads to elsewhere/


def test_one_file_has_one_key_however_it_is_spelled(tree: Callable[..., Path]) -> None:
    folder = tree("a/1.png", "a/2.png")
    (folder / "s.png").symlink_to("a/1.png")
    os.link(folder / "a/1.png", folder / "h.png")
    keys = {picture_key(folder / name) for name in ("a/1.png", "s.png", "h.png", "a/../a/./1.png")}
    assert len(keys) == 1 and picture_key(folder / "a/2.png") not in keys
    assert picture_key(folder / "none.png") == picture_key(folder / "a/../none.png")


def test_a_name_in_another_unicode_form_is_found_if_it_is_the_only_one(tree: Callable[..., Path]) -> None:
    folder = tree(f"d{NFD}gs/{NFD}.png", "both/a.png")
    assert find_file(folder, f"d{NFC}gs/{NFC}.png") == folder / f"d{NFD}gs/{NFD}.png"
    assert find_file(folder, f"d{NFD}gs/{NFD}.png") == folder / f"d{NFD}gs/{NFD}.png"
    assert find_file(folder, f"d{NFC}gs/none.png") is None and find_file(folder, "none.png") is None
    tree(f"d{NFD}gs/{NFC}.png")
    if len(os.listdir(folder / f"d{NFD}gs")) == 2:  # a file system that tells them apart
        assert find_file(folder, f"d{NFD}gs/{NFC}.png") == folder / f"d{NFD}gs/{NFC}.png"
