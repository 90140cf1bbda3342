"""Malicious and damaged files: decompression bombs, wrong suffixes, path traversal, thousands of mutated images."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, GifImagePlugin, Image

from vision_mtl.core.errors import UserError
from vision_mtl.data import archives, decode
from vision_mtl.data.decode import FORMATS, UnreadableImage, decode_bytes, decode_file
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


def test_an_image_with_a_huge_claimed_size_costs_only_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_decode", lambda *_: pytest.fail("decoded"))
    tracemalloc.start()
    for width, height in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (18_000, 18_000)):
        data = png_claiming(width, height, chunk(b"IDAT", zlib.compress(bytes(10_000_000))))
        with pytest.raises(UnreadableImage, match=r"exceed|damaged|not an image"):
            decode_bytes(data, "bomb.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25_000_000  # the compressed zeros, and no pixel


def test_an_unbounded_text_chunk_is_refused() -> None:
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
def test_a_file_that_is_not_an_image_is_refused_with_any_name(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("a program was started"))
    with pytest.raises(UnreadableImage, match="not an image in any supported format"):
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
    """2,400 mutated files in every format, grey and colour."""
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
    assert 100 < read < 2300  # both occur


def test_a_tar_with_path_traversal_writes_nothing(tmp_path: Path) -> None:
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


def test_a_sparse_member_that_claims_a_terabyte_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("huge.png")
    info.size = 512
    info.pax_headers = {"GNU.sparse.map": "0,512", "GNU.sparse.size": str(1 << 40), "GNU.sparse.name": "huge.png"}
    with tarfile.open(tmp_path / "train.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(bytes(512)))
    source = open_source(f"wds/{tmp_path}/train.tar", tmp_path)
    assert source.items() == []
    assert "'huge.png' is sparse, it expands to 1,099,511,627,776 bytes" in str(source.findings[0])


def test_only_the_first_frame_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (0, 255))
    buffers = [io.BytesIO(), io.BytesIO()]
    first.save(buffers[0], "GIF")
    first.save(buffers[1], "GIF", save_all=True, append_images=[second])
    start = buffers[0].getvalue()[:-1]  # without its end mark
    frame = buffers[1].getvalue()[len(start) : -1]
    data = start + (frame or start[13:]) * 100_000 + b";"
    seek = GifImagePlugin.GifImageFile._seek
    looked: list[int] = []
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "_seek", lambda *given: (looked.append(given[1]), seek(*given))[1])
    assert np.array_equal(decode_bytes(data, "many.gif")[..., 0], np.zeros((4, 4)))
    assert set(looked) == {0} and len(data) > 1_000_000


def test_an_endless_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    with pytest.raises(UnreadableImage, match="the file is empty"):
        decode_file(tmp_path / "endless.png")
    with (tmp_path / "holes.png").open("wb") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 1 << 20)
    with pytest.raises(UnreadableImage, match="the file has more than 1,048,576 bytes"):
        decode_file(tmp_path / "holes.png")


def zip_of(path: Path, bomb_bytes: int) -> Path:
    """Write a zip file with four images and one member of zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, name in enumerate(("0.png", "1.png", "2.png", "3.png")):
            archive.writestr(name, encoded("PNG", grey=bool(number % 2)))
        with archive.open("bomb.png", "w") as file:
            for _ in range(bomb_bytes >> 20):
                file.write(bytes(1 << 20))
    return path


def test_images_in_a_zip_file_are_read_without_unpacking_and_a_bomb_is_not(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "set" / "train.zip", 100 << 20)
    assert path.stat().st_size < 200_000
    source = open_source(f"hfds/{tmp_path}/set", tmp_path / "root")
    items = source.items()
    tracemalloc.start()  # the import of the library takes more
    read, said = 0, []
    for item in items:
        try:
            read += source.read(item).shape[:2] == (30, 40)
        except UnreadableImage as error:
            said.append(str(error))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read == 4 and len(said) == 1 and "bytes expand to more than 67,108,864" in said[0]
    assert peak < 25_000_000 and not list(tmp_path.rglob("*.png"))


def test_a_zip_file_with_path_traversal_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "train.zip"
    path.parent.mkdir(parents=True)
    names = ("../../escaped.png", f"{tmp_path}/absolute.png", "plain.png")
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, encoded("PNG"))
    with zipfile.ZipFile(path) as archive:
        assert all(archives.read_member(archive, name, name) == encoded("PNG") for name in names)
        with pytest.raises(UnreadableImage, match="cannot be read from"):
            archives.read_member(archive, "absent.png", "absent.png")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["train.zip"]


def test_the_expanded_size_is_checked_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ALLOWANCE", 1 << 20)
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "train.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("cat/bomb.png")
        info.size = 20 << 20
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    size = (tmp_path / "set" / "train.tar.gz").stat().st_size
    assert size * archives.MAX_EXPANSION < 20 << 20
    with pytest.raises(UserError, match=rf"of {size:,} bytes expands to more than .* If you trust it, unpack it"):
        open_source(f"hfds/{tmp_path}/set", tmp_path / "root").items()
    assert not list((tmp_path / "root").rglob("*.png"))
    lone = tmp_path / "lone.gz"
    lone.write_bytes(gzip.compress(bytes(20 << 20)))
    with pytest.raises(UserError, match="expands to more than"):
        archives.check_expansion(lone)
    lone.write_bytes(gzip.compress(bytes(1 << 19)))
    archives.check_expansion(lone)
    lone.write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(90))
    with pytest.raises(UserError, match="neither a zip nor a tar file"):
        archives.check_expansion(lone)


@pytest.mark.parametrize(
    ("suffix", "data", "said"),
    [("json", b"[" * 200_000, "is not JSON"), ("txt", b"x" * (1 << 21), "a label has 1,048,576 at most")],
)
def test_invalid_labels_are_refused(tmp_path: Path, suffix: str, data: bytes, said: str) -> None:
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for name, content in (("a.png", encoded("PNG")), (f"a.{suffix}", data)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    source = open_source(f"wds/{tmp_path}/train.tar", tmp_path)
    source.items()
    assert [finding.severity for finding in source.findings] == ["error"] and said in str(source.findings[0])


def test_a_mask_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(12):
        Image.fromarray(np.full((8, 8, 3), number * 9, np.uint8)).save(tmp_path / "images" / f"{number}.png")
        (tmp_path / "masks" / f"{number}.png").write_bytes(png_claiming(60_000, 60_000, chunk(b"IDAT", b"")))
    task = Task(source=f"folder/{tmp_path}/images", kind="dense", masks=str(tmp_path / "masks"))
    with pytest.raises(UserError, match=r"cannot be read .*exceed"):
        build_pool(Data(root=str(tmp_path / "root")), {"seen": task}, image_size=(8, 8))
