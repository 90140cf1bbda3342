"""Files that mean harm, or none: bombs, disguises, archives that climb, and thousands of mutated images."""

from __future__ import annotations

import io
import struct
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from vision_mtl.core.errors import UserError
from vision_mtl.data import decode
from vision_mtl.data.decode import FORMATS, UnreadableImage, decode_bytes
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import build_pool
from vision_mtl.data.source import open_source

KINDS = [(kind, {}) for kind in (*FORMATS, "MPO")]
KINDS += [("JPEG", {"progressive": True}), ("TIFF", {"compression": "tiff_lzw"})]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int, rest: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rest + chunk(b"IEND", b"")


def encoded(kind: str, grey: bool = False, **options: object) -> bytes:
    random, buffer = np.random.default_rng(0), io.BytesIO()
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((40, 30))
    (small.convert("L") if grey else small).save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_picture_that_claims_to_be_huge_costs_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_decode", lambda *_: pytest.fail("decoded"))
    tracemalloc.start()
    for width, height in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (18_000, 18_000)):
        data = png_claiming(width, height, chunk(b"IDAT", zlib.compress(bytes(10_000_000))))
        with pytest.raises(UnreadableImage, match=r"exceed|damaged|not an image"):
            decode_bytes(data, "bomb.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25_000_000  # the zeros that were compressed here, and no pixel


def test_a_text_that_expands_without_bound_is_refused() -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000)))
    with pytest.raises(UnreadableImage, match="damaged"):
        decode_bytes(png_claiming(8, 8, bomb + chunk(b"IDAT", zlib.compress(bytes(200)))), "bomb.png")


@pytest.mark.parametrize(
    "data",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/tmp/x) (w) file closefile\n",
        b"\x80\x04cos\nsystem\n(S'touch x'\ntR.",
    ],
)
def test_what_is_no_picture_is_refused_whatever_its_name(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("a program was started"))
    with pytest.raises(UnreadableImage, match="not an image, whatever its name says"):
        decode_bytes(data, "picture.png")


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_every_format_is_still_read(kind: str, options: dict[str, object]) -> None:
    assert decode_bytes(encoded(kind, **options), "x").shape == (30, 40, 3)


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 8))):
        at, length = int(random.integers(len(changed))), int(random.integers(1, 40))
        noise = random.integers(0, 256, int(random.integers(40)), dtype=np.uint8).tobytes()
        match int(random.integers(4)):
            case 0:
                changed[at] ^= 1 << int(random.integers(8))
            case 1:
                changed[at : at + length] = noise
            case 2:
                changed[at : at + length] = bytes(length)
            case _:
                changed = changed[: max(at, 1)]
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_read_or_refused() -> None:
    """2,400 of them, in every format, grey and colour."""
    random, read = np.random.default_rng(0), 0
    seeds = [encoded(kind, grey, **options) for kind, options in KINDS for grey in (False, True) if kind != "MPO"]
    for number in range(2400):
        data = mutated(seeds[number % len(seeds)], random)
        try:
            image = decode_bytes(data, "x")
        except UnreadableImage:
            continue
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (1, 3) and image.size
        read += 1
    assert 100 < read < 2300  # both happen


def test_a_tar_that_climbs_out_of_its_folder_writes_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    with tarfile.open(inside / "train.tar", "w") as tar:
        for name in ("../../escaped.png", f"{tmp_path}/absolute.png", "plain.png"):
            info = tarfile.TarInfo(name)
            info.size = len(encoded("PNG"))
            tar.addfile(info, io.BytesIO(encoded("PNG")))
        for kind, name in ((tarfile.SYMTYPE, "link.png"), (tarfile.LNKTYPE, "hard.png"), (tarfile.CHRTYPE, "dev.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    source = open_source(f"wds/{inside}/train.tar", tmp_path)
    assert len(source.items()) == 3 and all(source.read(item).shape == (30, 40, 3) for item in source.items())
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["train.tar"]


@pytest.mark.parametrize(
    ("suffix", "data", "said"),
    [("json", b"[" * 200_000, "is not JSON"), ("txt", b"x" * (1 << 21), "a label has 1,048,576 at most")],
)
def test_labels_that_are_no_labels_are_refused(tmp_path: Path, suffix: str, data: bytes, said: str) -> None:
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for name, content in (("a.png", encoded("PNG")), (f"a.{suffix}", data)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(UserError, match=said):
        open_source(f"wds/{tmp_path}/train.tar", tmp_path).items()


def test_a_mask_may_be_a_bomb_too(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(12):
        Image.fromarray(np.full((8, 8, 3), number * 9, np.uint8)).save(tmp_path / "images" / f"{number}.png")
        (tmp_path / "masks" / f"{number}.png").write_bytes(png_claiming(60_000, 60_000, chunk(b"IDAT", b"")))
    task = Task(source=f"folder/{tmp_path}/images", kind="dense", masks=str(tmp_path / "masks"))
    with pytest.raises(UserError, match=r"it cannot be read .*exceed"):
        build_pool(Data(root=str(tmp_path / "root")), {"seen": task}, image_size=(8, 8))
