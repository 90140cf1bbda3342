"""Each row of "What is read and what is refused" (docs/tasks.md) is tried on a small input that the test draws."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tarfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from vision_mtl.cli.command import main
from vision_mtl.data.decode import decode_raw
from vision_mtl.data.findings import Findings
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool, build_pool

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
HEADING = "## What is read and what is refused"
CASES: dict[str, Callable[[Path], None]] = {}


def rows() -> list[str]:
    """Return the inputs of the page's tables."""
    lines = PAGE.read_text("utf-8").partition(HEADING)[2].splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1].strip() for line in lines if line.startswith("| ")]
    return [cell for cell in cells if cell != "input"]


def case(row: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register the trial of the row whose input begins with `row`."""

    def register(function: Callable[[Path], None]) -> Callable[[Path], None]:
        assert row not in CASES
        CASES[row] = function
        return function

    return register


def picture(kind: int, number: int = 0, side: int = 12) -> Image.Image:
    values = np.random.default_rng([kind, number]).integers(0, 90, (side, side, 3), np.uint8)
    values[..., kind % 3] += 120
    return Image.fromarray(values)


def draw(folder: Path, *classes: str, count: int = 8) -> Path:
    """Draw `count` pictures into each class folder."""
    for kind, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(kind, number).save(folder / name / f"{number}.png")
    return folder


def look(tmp: Path, source: str, data: dict[str, Any] | None = None, **task: Any) -> tuple[Pool | None, str]:
    """Return the pool, or None if it cannot be built, and all findings as lines `severity: text`."""
    findings, pool = Findings(keep_going=True), None
    options = Data(root=str(tmp / "root"), **(data or {}))
    with findings.catching():
        pool = build_pool(options, {"t": Task(source=source, **task)}, image_size=(8, 8), findings=findings)
    return pool, "\n".join(f"{finding.severity}: {finding}" for finding in findings.by_importance())


def classes_of(tmp: Path, source: str, data: dict[str, Any] | None = None, **task: Any) -> list[str]:
    pool, text = look(tmp, source, data, **task)
    assert pool is not None and "error:" not in text, text
    return pool.class_names["t"]


def expect(found: tuple[Pool | None, str], *patterns: str) -> None:
    for pattern in patterns:
        assert re.search(pattern, found[1], re.DOTALL), f"{pattern!r} is not in\n{found[1]}"


def table(tmp: Path, header: str, cells: Sequence[object], encoding: str = "utf-8", separator: str = ",") -> str:
    """Write a CSV file with a picture for each cell; return its source."""
    folder = draw(tmp / "im", "a", "b", count=(len(cells) + 1) // 2)
    names = [f"im/{'ab'[n % 2]}/{n // 2}.png" for n in range(len(cells))]
    assert folder.is_dir()
    lines = [f"{name}{separator}{cell}" for name, cell in zip(names, cells, strict=True)]
    (tmp / "t.csv").write_bytes("\n".join([header, *lines]).encode(encoding))
    return f"csv/{tmp / 't.csv'}"


def tar(path: Path, members: Sequence[tuple[str, bytes]]) -> str:
    with tarfile.open(path, "w") as file:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return f"wds/{path}"


def png(kind: int, number: int = 0) -> bytes:
    buffer = io.BytesIO()
    picture(kind, number).save(buffer, "PNG")
    return buffer.getvalue()


def samples() -> list[tuple[str, bytes]]:
    """Return the members of twelve samples with a picture and a class."""
    return [member for n in range(12) for member in ((f"{n}.png", png(n % 2, n)), (f"{n}.cls", b"ab"[n % 2 :][:1]))]


def masked(tmp: Path, *values: Sequence[int], suffix: str = ".png") -> dict[str, Any]:
    """Draw 12 pictures, and masks of two values each: the values of mask n are `values[n % len(values)]`."""
    draw(tmp / "im", ".", count=12)
    (tmp / "masks").mkdir()
    for number in range(12):
        mask = np.full((12, 12), values[number % len(values)][0], np.uint8)
        mask[3:9, 3 : 5 + number % 5] = values[number % len(values)][1]
        Image.fromarray(mask).save(tmp / "masks" / f"{number}{suffix}")
    return {"source": f"folder/{tmp / 'im'}", "kind": "dense", "masks": str(tmp / "masks")}


# files and folders


@case("`CLASS/image`")
def _(tmp: Path) -> None:
    assert classes_of(tmp, f"folder/{draw(tmp / 'd', 'cat', 'dog')}") == ["cat", "dog"]


@case("folders train, training, val")
def _(tmp: Path) -> None:
    for first, second in (("Training", "TESTING"), ("pets/train", "pets/test")):
        folder = draw(tmp / first.replace("/", "-"), f"{first}/cat", f"{first}/dog", f"{second}/cat", f"{second}/dog")
        pool, _ = look(tmp, f"folder/{folder}")
        assert pool is not None and pool.class_names["t"] == ["cat", "dog"] and len(pool.indices("test")) == 16


@case("a further folder beside")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "train/cat", "train/dog", "test/cat", "test/dog", "extra/x")
    expect(look(tmp, f"folder/{folder}"), "warning: .*'extra' .8.*other_folders unlabelled")
    used, _ = look(tmp, f"folder/{folder}", {"other_folders": "unlabelled"})
    assert used is not None and len(used) == 40 and used.class_names["t"] == ["cat", "dog"]


@case("one folder around all")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "pets/cat", "pets/dog")
    expect(look(tmp, f"folder/{folder}"), rf"error: .*folder/{re.escape(str(folder))}/pets")


@case("a class folder without a readable")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "cat", "dog")
    (folder / "bird").mkdir()
    (folder / "bird" / "1.HEIC").write_bytes(bytes(99))
    expect(look(tmp, f"folder/{folder}"), r"warning: .*bird.*\.HEIC")


@case("HEIC, raw, DICOM")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "cat", "dog")
    for name in ("a.heic", "a.CR2", "a.dcm", "a.psd", "a.npy", "a.mp4"):
        (folder / "cat" / name).write_bytes(bytes(99))
    pool, text = look(tmp, f"folder/{folder}")
    assert pool is not None and len(pool) == 16
    assert all(suffix in text for suffix in (".heic", ".CR2", ".dcm", ".psd", ".npy", ".mp4")) and "warning" in text


@case("`@eaDir`")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "cat", "dog", "@eaDir", "__MACOSX", ".hidden")
    picture(0).save(folder / "cat" / "._0.png")
    (folder / "Thumbs.db").write_bytes(bytes(9))
    pool, text = look(tmp, f"folder/{folder}")
    assert pool is not None and len(pool) == 16 and pool.class_names["t"] == ["cat", "dog"]
    assert re.search("note: .*@eaDir", text)


@case("a folder reached twice")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "cat", "dog")
    (folder / "dog" / "up").symlink_to(folder)
    (folder / "cat" / "again").symlink_to(folder / "cat")
    pool, _ = look(tmp, f"folder/{folder}")
    assert pool is not None and len(pool) == 16 and pool.class_names["t"] == ["cat", "dog"]


@case("a file that cannot be decoded")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "cat", "dog")
    (folder / "cat" / "broken.png").write_bytes(png(0)[:90])
    expect(look(tmp, f"folder/{folder}"), "error: 1 of 17 files .*broken.png.*--data.skip_unreadable")
    pool, text = look(tmp, f"folder/{folder}", {"skip_unreadable": True})
    assert pool is not None and len(pool) == 16 and "error" not in text


# labels


@case("one file with two labels")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "cat", "dog")
    (folder / "dog" / "also.png").symlink_to(folder / "cat" / "0.png")
    expect(look(tmp, f"folder/{folder}"), "error: .*cat/0.png.*dog/also.png|error: .*dog/also.png.*cat/0.png")
    draw(tmp / "im", "a", "b")
    for other in ("./im/a/0.png", "im/../im/a/0.png"):
        lines = [*(f"im/{c}/{n}.png,{c}" for c in "ab" for n in range(8)), f"{other},b"]
        (tmp / "t.csv").write_text("\n".join(["image,label", *lines]))
        expect(look(tmp, f"csv/{tmp / 't.csv'}"), "error: .*im/a/0.png")
    name = unicodedata.normalize("NFC", "ö.png")
    picture(5).save(tmp / "im" / name)
    lines = [*(f"im/{c}/{n}.png,{c}" for c in "ab" for n in range(8))]
    lines += [f"im/{name},a", f"im/{unicodedata.normalize('NFD', name)},b"]
    (tmp / "u.csv").write_text("\n".join(["image,label", *lines]), "utf-8")
    expect(look(tmp, f"csv/{tmp / 'u.csv'}"), "error: ")


@case("equal content with two labels")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "cat", "dog")
    (folder / "dog" / "copy.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    both = "cat/0.png.*dog/copy.png|dog/copy.png.*cat/0.png"
    expect(look(tmp, f"folder/{folder}"), f"warning: .*({both})")
    expect(look(tmp, f"folder/{folder}", {"same_content": "error"}), f"error: .*({both})")
    pool, _ = look(tmp, f"folder/{folder}", {"same_content": "drop"})
    assert pool is not None and int(pool.targets["t"].labelled.sum()) == 15


@case("one class only")
def _(tmp: Path) -> None:
    expect(look(tmp, f"folder/{draw(tmp / 'd', 'cat', count=12)}"), "error: .*cat")
    expect(look(tmp, table(tmp, "image,size", [3] * 12), kind="regression"), "error: .*3")


@case("a class in test images only")
def _(tmp: Path) -> None:
    cells = ["a,train", "b,train"] * 4 + ["a,test", "b,test", "a,val"]
    source = table(tmp, "image,label,part", [*cells, "c,test"])
    expect(look(tmp, source, label="label", split="part"), "error: .*test images and not in the training ones: c")
    source = table(tmp, "image,label,part", [*cells, "c,val"])
    expect(look(tmp, source, label="label", split="part"), "warning: .*validation images and not in .*: c")


@case("cells `nan`")
def _(tmp: Path) -> None:
    source = table(tmp, "image,label", ["nan", "N/A", "#N/A", "<NA>", "NULL", *"ababababab"])
    expect(look(tmp, source), "warning: .*no label.*tasks.t.missing")
    assert classes_of(tmp, source) == ["a", "b"]
    assert "nan" in classes_of(tmp, table(tmp, "image,label", ["nan", "nan", "nan", *"abababab"]), missing=[])


@case("cells `None`")
def _(tmp: Path) -> None:
    source = table(tmp, "image,label", [*["None", "NA", "-", "?"] * 4, *"ababab"])
    expect(look(tmp, source), "warning: .*None.*read as a class.*tasks.t.missing")
    assert "None" in classes_of(tmp, source)


@case("classes that differ in case")
def _(tmp: Path) -> None:
    source = table(tmp, "image,label", [*["Cat", "cat", "1", "1.0"] * 4, *"ababab"])
    expect(look(tmp, source), "warning: .*Cat.*cat", "warning: .*1.0")


@case("classes that are mostly different")
def _(tmp: Path) -> None:
    expect(
        look(tmp, table(tmp, "image,age", [20 + n // 2 * 2 + n % 2 for n in range(16)])), "warning: .*kind regression"
    )


# tables, lists and names


@case("names that are not UTF-8")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "two\nlines", 'quo"te', "a\u2028b")
    os.rename(folder / "two\nlines" / "3.png", os.fsencode(folder / "two\nlines") + b"/caf\xe9.png")
    pool, text = look(tmp, f"folder/{folder}")
    assert pool is not None and "error" not in text and len(pool) == 24
    assert set(pool.class_names["t"]) == {"two\nlines", 'quo"te', "a\u2028b"}
    assert sum(r"caf\xe9.png" in name for name in pool.identities) == 1


@case("CSV in UTF-8 or UTF-16")
def _(tmp: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        for separator in (",", ";", "\t"):
            cells = ['"two\nlines"', "ö"] * 6
            source = table(tmp, f"image{separator}label", cells, encoding, separator)
            assert classes_of(tmp, source) == ["two\nlines", "ö"]


@case("a CSV file without a header")
def _(tmp: Path) -> None:
    source = table(tmp, "im/a/0.png,a", ["a", "b"] * 6)
    expect(look(tmp, source), "error: .*has no header")


@case("another encoding")
def _(tmp: Path) -> None:
    expect(look(tmp, table(tmp, "image,label", ["é", "a"] * 6, "latin-1")), "error: .*UTF-8")
    expect(look(tmp, table(tmp, "image,label", ['"a', "b", "c", "d"])), "error: .*line 2")
    expect(look(tmp, table(tmp, "image,label", ["a", "b" * 140_000, "a", "b"])), "error: .*line 3")
    expect(look(tmp, table(tmp, "image,label", ["a", "b,c", "a", "b"])), "error: .*line 3")


@case("an image that does not exist")
def _(tmp: Path) -> None:
    (tmp / "t.csv").write_text("image,label\nim/lost.png,a\n")
    expect(look(tmp, f"csv/{tmp / 't.csv'}"), "error: .*line 2: there is no image file 'im/lost.png'")


@case("`a.png test")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "cat", "dog")
    lines = [f"{c}/{n}.png {'test  # held out' if n < 2 else 'train'}" for c in ("cat", "dog") for n in range(8)]
    (tmp / "list.txt").write_text("\n".join([*lines[:4], "# moved here from test", *lines[4:]]))
    pool, _ = look(tmp, f"folder/{folder}", split=str(tmp / "list.txt"))
    assert pool is not None and len(pool.indices("test")) == 4


# shards and Hugging Face sets


@case("a shard's key")
def _(tmp: Path) -> None:
    pool, _ = look(tmp, tar(tmp / "a.tar", [(f"v1.0/{name}", content) for name, content in samples()]))
    assert pool is not None and len(pool) == 12 and pool.class_names["t"] == ["a", "b"]


@case("several pictures in a sample")
def _(tmp: Path) -> None:
    members = [(f"{n}.{s}", png(n % 2, n)) for n in range(12) for s in ("rgb.png", "depth.png")]
    members += [(f"{n}.cls", b"ab"[n % 2 :][:1]) for n in range(12)]
    members.sort(key=lambda member: int(member[0].partition(".")[0]))
    source = tar(tmp / "a.tar", members)
    expect(look(tmp, source), r"error: .*rgb.*depth.*tasks\.NAME\.image")
    assert classes_of(tmp, source, image="rgb.png") == ["a", "b"]
    images = [picture(n % 2, n) for n in range(12)]
    features = datasets.Features({"x": datasets.Image(), "y": datasets.Image(), "label": datasets.Value("string")})
    (tmp / "set").mkdir()
    rows = datasets.Dataset.from_dict({"x": images, "y": images, "label": ["a", "b"] * 6}, features=features)
    rows.to_parquet(str(tmp / "set" / "train-00000-of-00001.parquet"))
    expect(look(tmp, f"hfds/{tmp / 'set'}"), r"error: .*x.*y.*tasks\..*\.image")
    assert classes_of(tmp, f"hfds/{tmp / 'set'}", image="y") == ["a", "b"]


@case("a key that occurs twice")
def _(tmp: Path) -> None:
    expect(look(tmp, tar(tmp / "a.tar", [*samples(), ("3.png", png(1, 3)), ("3.cls", b"a")])), r"error: .*a\.tar.*3")


@case("a sample without a picture")
def _(tmp: Path) -> None:
    expect(look(tmp, tar(tmp / "a.tar", [*samples(), ("lost.cls", b"a")])), "warning: .*lost")


@case("a float column")
def _(tmp: Path) -> None:
    scores = [1_700_000_000.25 + n for n in range(12)]
    features = datasets.Features({"image": datasets.Image(), "score": datasets.Value("float64")})
    (tmp / "set").mkdir()
    images = [picture(n % 2, n) for n in range(12)]
    rows = datasets.Dataset.from_dict({"image": images, "score": scores}, features=features)
    rows.to_parquet(str(tmp / "set" / "train-00000-of-00001.parquet"))
    pool, _ = look(tmp, f"hfds/{tmp / 'set'}", kind="regression")
    assert pool is not None and sorted(pool.targets["t"].values.tolist()) == scores


# masks


@case("0 and 255")
def _(tmp: Path) -> None:
    task = masked(tmp, (0, 255))
    expect(look(tmp, **task), "note: .*255")
    assert classes_of(tmp, **task) == ["0", "255"]


@case("0, 1 and 255")
def _(tmp: Path) -> None:
    assert classes_of(tmp, **masked(tmp, (0, 1), (0, 255), (1, 255))) == ["0", "1"]


@case("0 and 1 in some files")
def _(tmp: Path) -> None:
    expect(look(tmp, **masked(tmp, (0, 1), (0, 255))), r"error: .*masks.\d+.png.*masks.\d+.png")


@case("colours")
def _(tmp: Path) -> None:
    task = masked(tmp, (0, 1))
    for file in (tmp / "masks").iterdir():
        values = np.asarray(Image.open(file))
        Image.fromarray(np.where(values[..., None] == 1, (255, 0, 0), (0, 0, 255)).astype(np.uint8)).save(file)
    assert classes_of(tmp, **task) == ["#0000ff", "#ff0000"]


@case("a JPEG file")
def _(tmp: Path) -> None:
    expect(look(tmp, **masked(tmp, (0, 200), suffix=".jpg")), "error: .*JPEG")
    for file in (tmp / "masks").iterdir():
        file.unlink()
    for number in range(12):
        large = Image.fromarray(np.kron(np.eye(2, dtype=np.uint8) * 255, np.ones((3, 3), np.uint8)))
        large.resize((12, 12), Image.Resampling.BICUBIC).save(tmp / "masks" / f"{number}.png")
    task = {"source": f"folder/{tmp / 'im'}", "kind": "dense", "masks": str(tmp / "masks")}
    expect(look(tmp, **task), "error: .*edges")


@case("another aspect ratio")
def _(tmp: Path) -> None:
    task = masked(tmp, (0, 1))
    mask = np.zeros((12, 20), np.uint8)
    mask[3:] = 1
    Image.fromarray(mask).save(tmp / "masks" / "0.png")
    expect(look(tmp, **task), "error: .*12 x 20.*12 x 12")


@case("masks without a picture")
def _(tmp: Path) -> None:
    task = masked(tmp, (0, 1))
    Image.fromarray(np.eye(12, dtype=np.uint8)).save(tmp / "masks" / "stray.png")
    expect(look(tmp, **task), "warning: .*1 masks? .*stray.png")


# numbers


@case("timestamps")
def _(tmp: Path) -> None:
    times = [1_700_000_000 + n for n in range(12)]
    pool, text = look(tmp, table(tmp, "image,time", times), kind="regression")
    assert pool is not None and "error" not in text and sorted(pool.targets["t"].values.tolist()) == times


@case("`3,5`, `1_000`")
def _(tmp: Path) -> None:
    for text in ('"3,5"', "1_000", "inf", "1e39"):
        source = table(tmp, "image,size", [text, *range(11)])
        expect(look(tmp, source, kind="regression"), rf"error: .*{re.escape(text.strip(chr(34)))}.*im/a/0.png")


@case("a label far from all others")
def _(tmp: Path) -> None:
    expect(look(tmp, table(tmp, "image,size", [-9999, *range(40)]), kind="regression"), "warning: .*-9999")


# depth and channels


@case("8 bits, PGM and PPM")
def _(tmp: Path) -> None:
    raw = decode_raw(b"P5 2 1 100 " + bytes([40, 100]), "a.pgm")
    assert raw.maximum == 255 and raw.values.ravel().tolist() == [102, 255]
    deep = decode_raw(b"P5 2 1 4095 " + np.array([4095, 0], ">u2").tobytes(), "a.pgm")
    assert deep.maximum == 4095 and deep.values.ravel().tolist() == [4095, 0]


def deep_set(tmp: Path, factor: int = 1) -> str:
    for kind, name in enumerate(("cat", "dog")):
        (tmp / "deep" / name).mkdir(parents=True, exist_ok=True)
        for number in range(8):
            values = np.random.default_rng([kind, number]).integers(0, 2000, (12, 12)).astype(np.uint16)
            values[0, :2] = 0, 4000
            Image.fromarray(values * np.uint16(factor)).save(tmp / "deep" / name / f"{number}.png")
    return f"folder/{tmp / 'deep'}"


@case("other integers and floats")
def _(tmp: Path) -> None:
    pool, _ = look(tmp, deep_set(tmp))
    assert pool is not None and pool.dtype == np.uint16
    (found,) = pool.details["value_ranges"].values()
    assert (found["low"], found["high"]) == (0, 4000) and "training images" in found["from"]
    declared, _ = look(tmp, deep_set(tmp), value_range=[0, 8000])
    assert declared is not None
    ratio = pool.gather(torch.arange(4)).mean() / declared.gather(torch.arange(4)).mean()
    assert float(ratio) == pytest.approx(2, rel=1e-3)


@case("alpha, palettes")
def _(tmp: Path) -> None:
    image = picture(1)
    expected = np.asarray(image)
    transparent = image.copy()
    transparent.putalpha(7)
    for form in ("PNG", "TIFF"):
        buffer = io.BytesIO()
        transparent.save(buffer, form)
        assert np.array_equal(decode_raw(buffer.getvalue(), "a").values, expected)
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    assert decode_raw(buffer.getvalue(), "p.png").values.tolist() == [[[255, 0, 0], [0, 0, 255]]]
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(turned, "PNG", exif=exif)
    assert decode_raw(turned.getvalue(), "t.png").values.shape == (2, 1, 1)
    inverted = io.BytesIO()
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(inverted, "TIFF", tiffinfo={262: 0})
    assert decode_raw(inverted.getvalue(), "i.tif").values.ravel().tolist() in ([255, 0], [0, 255])


@case("an animation")
def _(tmp: Path) -> None:
    buffer = io.BytesIO()
    picture(0).save(buffer, "PNG", save_all=True, append_images=[picture(1)])
    assert np.array_equal(decode_raw(buffer.getvalue(), "a.png").values, np.asarray(picture(0)))


@case("several pages")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "cat", "dog")
    picture(0).save(folder / "cat" / "pages.tif", save_all=True, append_images=[picture(1)])
    expect(look(tmp, f"folder/{folder}"), "error: .*pages.tif.*2 pages")
    bands = np.random.default_rng(0).integers(0, 255, (12, 12, 5), np.uint8)
    tifffile = pytest.importorskip("tifffile")
    (folder / "cat" / "pages.tif").unlink()
    tifffile.imwrite(folder / "cat" / "bands.tif", bands, photometric="minisblack", planarconfig="contig")
    expect(look(tmp, f"folder/{folder}"), "error: .*bands.tif.*5")


@case("a deep file for a run on 8-bit")
def _(tmp: Path) -> None:
    pytest.importorskip("timm")
    folder = draw(tmp / "d", "cat", "dog", count=12)
    words = ["--backbone.name", "test_resnet", "--image_size", "32", "--optim.steps", "2", "--optim.batch_size", "8"]
    words += ["--data.root", str(tmp / "root"), "--device", "cpu", "--console", "quiet"]
    run = ["--stage", "finetune", "--tasks.t.source", f"folder/{folder}", "--run_dir", str(tmp / "run")]
    assert main([*run, *words]) == 0
    deep = deep_set(tmp).removeprefix("folder/")
    predict = ["--stage", "predict", "--init_from", str(tmp / "run")]
    predict += ["--device", "cpu", "--console", "quiet", "--predict.images", f"{deep}/cat/0.png"]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert main([*predict, "--run_dir", str(tmp / "p")]) == 2
    assert "predict.value_range" in said.getvalue()
    assert main([*predict, "--predict.value_range", "[0, 4000]", "--run_dir", str(tmp / "q")]) == 0


@case("a file on another scale")
def _(tmp: Path) -> None:
    words = ["--backbone.name", "test_resnet", "--backbone.in_chans", "1", "--image_size", "32", "--optim.steps", "2"]
    words += ["--optim.batch_size", "8", "--data.root", str(tmp / "root"), "--device", "cpu", "--console", "quiet"]
    run = ["--stage", "finetune", "--tasks.t.source", deep_set(tmp), "--run_dir", str(tmp / "run")]
    assert main([*run, *words]) == 0
    (tmp / "new").mkdir()
    Image.fromarray(np.full((12, 12), 40_000, np.uint16)).save(tmp / "new" / "a.png")
    Image.fromarray(np.full((12, 12), 90, np.uint8)).save(tmp / "new" / "b.png")
    predict = ["--stage", "predict", "--init_from", str(tmp / "run"), "--predict.images", str(tmp / "new")]
    assert main([*predict, "--device", "cpu", "--console", "quiet", "--run_dir", str(tmp / "p")]) == 0
    clipped, shallow = json.loads((tmp / "p" / "result.json").read_text())["warnings"]
    assert "1 of 2 images have more than 20% of their values outside 0 to 4000" in clipped
    assert "1 of 2 images have 8 bits" in shallow and "--predict.value_range" in clipped


# training


@case("a batch, or an accumulated part")
def _(tmp: Path) -> None:
    folder = draw(tmp / "d", "cat", "dog", count=12)
    words = ["--stage", "finetune", "--tasks.t.source", f"folder/{folder}", "--run_dir", str(tmp / "run")]
    words += ["--backbone.name", "test_resnet", "--image_size", "32", "--optim.batch_size", "1", "--optim.steps", "2"]
    assert main([*words, "--data.root", str(tmp / "root"), "--device", "cpu", "--console", "quiet"]) == 2
    error = json.loads((tmp / "run" / "result.json").read_text())["error"]
    assert "BatchNorm" in error and "optim.batch_size" in error


def test_every_row_has_a_trial() -> None:
    found = rows()
    assert len(found) > 40
    for row, name in zip(found, CASES, strict=True):
        assert row.startswith(name)


@pytest.mark.parametrize("name", CASES)
def test_row(name: str, tmp_path: Path) -> None:
    CASES[name](tmp_path)
