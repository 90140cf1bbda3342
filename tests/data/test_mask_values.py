"""Every form in which a mask can be stored is read as its owner meant it, or refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vision_mtl.core.errors import UserError
from vision_mtl.data.findings import Findings
from vision_mtl.data.mask_decoding import BadMask, decode_mask
from vision_mtl.data.masks import read_masks
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import build_pool
from vision_mtl.data.source import Item
from vision_mtl.data.store import Settings
from vision_mtl.data.targets import Target

SIDE = 24
BLOCK = np.kron(np.array([[0, 1], [1, 0]]), np.ones((SIDE // 2, SIDE // 2), int))  # two classes in four blocks
THREE = np.where(np.arange(SIDE) < 4, 2, BLOCK)  # and a third


def saved(folder: Path, name: str, mask: np.ndarray | Image.Image, **options: object) -> Path:
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(folder / name, **options)
    return folder / name


def grey(mask: np.ndarray, *values: int) -> np.ndarray:
    return np.array(values, np.uint8)[mask]


def painted(mask: np.ndarray, *colours: str) -> np.ndarray:
    return np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours], np.uint8)[mask]


def read(files: list[Path], **options: object) -> tuple[Target, Findings]:
    findings, items = Findings(), [Item(f"{n}.jpg") for n in range(len(files))]
    task = Task(source="folder/x", kind="dense", masks="masks", **options)
    return read_masks("seg", task, items, list(files), Settings((SIDE, SIDE), 3, "stretch"), findings), findings


def classes(target: Target) -> list[np.ndarray]:
    return [target.masks[row].astype(int) for row in target.values]


def png_of_bits(mask: np.ndarray, bits: int) -> bytes:
    """A grey PNG with fewer than eight bits, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = mask.shape
    digits = ["".join(f"{value:0{bits}b}" for value in row) for row in mask]
    rows = b"".join(b"\0" + int(row, 2).to_bytes(len(row) // 8, "big") for row in digits)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def palette_image(mask: np.ndarray, *colours: str) -> Image.Image:
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette(painted(np.arange(len(colours)), *colours).tobytes())
    return image


def test_foreground_of_255_is_a_class_and_beside_more_values_it_is_none(tmp_path: Path) -> None:
    target, findings = read([saved(tmp_path, "a.png", grey(BLOCK, 0, 255))])
    assert target.class_names == ["0", "255"] and np.array_equal(classes(target)[0], BLOCK)
    assert [f.severity for f in findings.all] == ["note"] and "hold 0 and 255, so 255 is a class" in findings.all[
        0
    ].text
    assert target.details["pixel_shares"] == {"0": 0.5, "255": 0.5} and target.details["unlabelled_pixels"] == 0
    more, findings = read([saved(tmp_path, "b.png", grey(THREE, 0, 1, 255))])
    assert more.class_names == ["0", "1"] and not findings.all
    assert more.details["unlabelled_pixels"] == pytest.approx(1 / 6, abs=1e-6)
    only, _ = read([saved(tmp_path, "c.png", grey(BLOCK, 255, 255))])
    assert only.class_names == ["255"]  # a single class, which the checks of tasks refuse
    assert [part.tolist() for part in only.occurrences()] == [[0], [0]]


@pytest.mark.parametrize("ignore", [0, 3, None, 7])
def test_other_values_to_ignore_are_obeyed(ignore: int | None, tmp_path: Path) -> None:
    target, _ = read([saved(tmp_path, "a.png", grey(THREE, 0, 3, 255))], ignore=ignore)
    assert target.class_names == [str(v) for v in (0, 3, 255) if v != ignore]


FORMS = {
    "grey.png": lambda: Image.fromarray(grey(THREE, 0, 1, 2)),
    "grey.tif": lambda: Image.fromarray(grey(THREE, 0, 1, 2)),
    "grey.bmp": lambda: Image.fromarray(grey(THREE, 0, 1, 2)),
    "grey.gif": lambda: Image.fromarray(grey(THREE, 0, 1, 2)),
    "sixteen.png": lambda: Image.fromarray(THREE.astype(np.uint16)),
    "sixteen.tif": lambda: Image.fromarray(THREE.astype(np.uint16)),
    "whole.tif": lambda: Image.fromarray(THREE.astype(np.int32)),
    "floats.tif": lambda: Image.fromarray(THREE.astype(np.float32)),
    "palette.png": lambda: palette_image(THREE, "#102030", "#ff0000", "#00ff00"),
    "as_rgb.png": lambda: Image.fromarray(np.repeat(grey(THREE, 0, 1, 2)[..., None], 3, 2)),
    "as_rgb.webp": lambda: Image.fromarray(np.repeat(grey(THREE, 0, 1, 2)[..., None], 3, 2)),
    "opaque.png": lambda: Image.merge("LA", [Image.fromarray(grey(THREE, 0, 1, 2)), Image.new("L", (SIDE, SIDE), 255)]),
    "opaque_rgba.png": lambda: Image.fromarray(np.repeat(grey(THREE, 0, 1, 2)[..., None], 3, 2)).convert("RGBA"),
}


@pytest.mark.parametrize("name", FORMS)
def test_numbers_in_every_form(name: str, tmp_path: Path) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    target, findings = read([saved(tmp_path, name, FORMS[name](), **options)])
    assert target.class_names == ["0", "1", "2"] and np.array_equal(classes(target)[0], THREE)
    assert not findings.all


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_keep_the_files_own_numbers(bits: int, tmp_path: Path) -> None:
    """Pillow scales them to 255, where the largest would be ignored."""
    mask = np.where(THREE == 2, 2**bits - 1, BLOCK)
    (tmp_path / "a.png").write_bytes(png_of_bits(mask, bits))
    target, _ = read([tmp_path / "a.png"])
    assert target.class_names == sorted({"0", "1", str(2**bits - 1)}, key=int)


def test_a_pgm_files_maximum_scales_nothing(tmp_path: Path) -> None:
    for top in (3, 255, 4095):
        size = 1 if top < 256 else 2
        data = b"".join(int(v).to_bytes(size, "big") for v in np.where(THREE == 2, 3, THREE).ravel())
        (tmp_path / f"{top}.pgm").write_bytes(b"P5 %d %d %d\n" % (SIDE, SIDE, top) + data)
        assert read([tmp_path / f"{top}.pgm"])[0].class_names == ["0", "1", "3"], top


def test_one_bit_and_white_as_zero(tmp_path: Path) -> None:
    import tifffile

    bits = saved(tmp_path, "a.png", BLOCK.astype(bool))
    (tmp_path / "a.pbm").write_text(f"P1 {SIDE} {SIDE}\n" + "\n".join(" ".join(map(str, row)) for row in BLOCK))
    tifffile.imwrite(tmp_path / "a.tif", grey(BLOCK, 0, 1), photometric="miniswhite")
    for file in (bits, tmp_path / "a.pbm", tmp_path / "a.tif"):
        assert np.array_equal(decode_mask(file).values, BLOCK), file


def test_distinct_colours_are_classes(tmp_path: Path) -> None:
    colours = ("#000000", "#ff0000", "#e0e0c0")
    files = [saved(tmp_path, "a.png", painted(THREE, *colours)), saved(tmp_path, "b.png", painted(BLOCK, *colours[:2]))]
    black = saved(tmp_path, "c.png", painted(BLOCK, "#000000", "#000000"))  # alone it would be a grey mask
    target, findings = read([*files, black])
    assert target.class_names == ["#000000", "#e0e0c0", "#ff0000"] and not findings.all
    assert np.array_equal(classes(target)[0], np.array([0, 2, 1])[THREE])
    void, _ = read(files, ignore="#E0E0C0")
    assert void.class_names == ["#000000", "#ff0000"] and void.details["unlabelled_pixels"] > 0
    for wrong in ("#12", "white", "255", -1):
        with pytest.raises(UserError, match="ignore must be 0 or more, a colour as #e0e0c0, or null"):
            Task(source="folder/x", kind="dense", masks="m", ignore=wrong)


def test_colours_beside_numbers_are_refused(tmp_path: Path) -> None:
    files = [
        saved(tmp_path, "a.png", painted(BLOCK, "#000000", "#ff0000")),
        saved(tmp_path, "b.png", grey(BLOCK, 0, 1)),
    ]
    with pytest.raises(UserError, match=r"1 masks have colours \(.*a\.png\) and 1 have numbers \(.*b\.png\)"):
        read(files)[1].raise_errors()


def test_palettes_that_differ_are_refused(tmp_path: Path) -> None:
    one = saved(tmp_path, "a.png", palette_image(BLOCK, "#000000", "#ff0000", "#0000ff"))
    other = saved(tmp_path, "b.png", palette_image(BLOCK, "#000000", "#00ff00"))
    unused = saved(tmp_path, "c.png", palette_image(BLOCK, "#000000", "#ff0000", "#123456"))
    assert not read([one, unused])[1].all
    with pytest.raises(UserError, match=r"1 is #ff0000 in .*a\.png and #00ff00 in .*b\.png\. If the numbers are"):
        read([one, other])[1].raise_errors()


def test_two_spellings_of_foreground_are_refused(tmp_path: Path) -> None:
    ones, full = saved(tmp_path, "a.png", grey(BLOCK, 0, 1)), saved(tmp_path, "b.png", grey(BLOCK, 0, 255))
    words = r"1 masks hold 0 and 1 \(.*a\.png\), 1 hold 0 and 255 \(.*b\.png\).*two spellings.*--tasks\.seg\.ignore 254"
    with pytest.raises(UserError, match=words):
        read([ones, full])[1].raise_errors()
    both = saved(tmp_path, "c.png", grey(THREE, 0, 1, 255))
    assert read([ones, full, both])[0].class_names == ["0", "1"]  # 255 beside 1 means no class
    bits, more = saved(tmp_path, "d.png", BLOCK.astype(bool)), saved(tmp_path, "e.png", grey(THREE, 0, 255, 128))
    with pytest.raises(
        UserError, match=r"1 masks have so few bits that their numbers end at 1 \(.*d\.png\).*0, 128, 255"
    ):
        read([bits, more])[1].raise_errors()
    assert not read([bits, saved(tmp_path, "f.png", grey(THREE, 0, 1, 2))])[1].all


def disc(side: int = 96) -> Image.Image:
    y, x = np.mgrid[:side, :side] - side / 2
    return Image.fromarray(np.where(x**2 + y**2 < side**2 / 9, 255, 0).astype(np.uint8))


@pytest.mark.parametrize("how", ["blurred", "resized", "jpeg", "colours"])
def test_smoothed_masks_are_refused(how: str, tmp_path: Path) -> None:
    mask = disc()
    if how == "blurred":
        mask = mask.filter(ImageFilter.GaussianBlur(1))
    elif how == "resized":
        mask = mask.resize((130, 130), Image.Resampling.BICUBIC)
    elif how == "jpeg":
        mask.save(tmp_path / "a.jpg", quality=80)
        mask = Image.open(tmp_path / "a.jpg").convert("L")
    else:
        wide = np.asarray(mask.filter(ImageFilter.GaussianBlur(1)))
        mask = Image.fromarray(np.stack([wide, wide * 0, wide * 0], 2))
    with pytest.raises(
        UserError, match=r"occur only along edges.*smoothed, resized by interpolation, or saved as JPEG"
    ):
        read([saved(tmp_path, "a.png", mask)])[1].raise_errors()


def test_thin_classes_are_no_smoothing(tmp_path: Path) -> None:
    """Lines one pixel wide, as of lanes or vessels, and noise without any area."""
    lanes = np.zeros((96, 96), np.uint8)
    for k in range(1, 11):
        lanes[:, 8 * k + 2] = k  # pixels that are left after resizing
        lanes[8 * k + 2, :] = k
    target, findings = read([saved(tmp_path, "a.png", lanes)])
    assert not findings.of("error") and len(target.class_names) == 11
    random = np.random.default_rng(0).integers(0, 20, (SIDE, SIDE)).astype(np.uint8)
    assert not read([saved(tmp_path, "b.png", random)])[1].of("error")


def test_rare_and_vanishing_values_are_counted(tmp_path: Path) -> None:
    mask = np.kron(BLOCK, np.ones((10, 10), int)).astype(np.uint8)
    mask[7, 7] = mask[7, 8] = 9
    mask[100:104, 3:7] = 12
    _, findings = read([saved(tmp_path, "a.png", mask)])
    rare, lost = findings.of("warning") if len(findings.of("warning")) == 2 else (findings.of("warning")[0], None)
    assert "9 (2 pixels)" in rare.text and "which nowhere fill a square of 3 x 3" in rare.text
    mask[100:104, 3:7] = mask[100, 2]
    mask[101:104, 1:4] = 13
    lost = [f.text for f in read([saved(tmp_path, "b.png", mask)])[1].all if "vanish" in f.text]
    assert not lost or "13 (9 pixels)" in lost[0]


@pytest.mark.parametrize(
    ("name", "mask", "words"),
    [
        ("a.png", Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "has transparent pixels"),
        ("a.png", Image.new("LA", (8, 8), (1, 128)), "has transparent pixels"),
        ("a.tif", Image.fromarray(np.full((8, 8), -1, np.int32)), "holds -1: numbers must be 0 to"),
        ("a.tif", Image.fromarray(np.full((8, 8), 0.5, np.float32)), "not whole"),
        ("a.tif", Image.fromarray(np.full((8, 8), np.nan, np.float32)), "not whole"),
        ("a.jpg", Image.new("L", (8, 8)), "is compressed as JPEG"),
        ("a.tif", Image.new("CMYK", (8, 8)), "of mode CMYK"),
    ],
)
def test_what_is_no_mask_is_refused(name: str, mask: Image.Image, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadMask, match=words):
        decode_mask(saved(tmp_path, name, mask))


def test_a_file_of_several_masks_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(grey(BLOCK, 0, k)) for k in (1, 2)]
    file = saved(tmp_path, "a.tif", pages[0], save_all=True, append_images=pages[1:])
    with pytest.raises(BadMask, match="holds 2 pictures"):
        decode_mask(file)
    lossy = saved(tmp_path, "b.tif", Image.new("L", (16, 16)), compression="jpeg")
    with pytest.raises(BadMask, match="is compressed as JPEG"):
        decode_mask(lossy)


def test_orientation_tags_of_masks_and_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = grey(np.repeat(np.arange(2)[None], 20, 0).repeat(20, 1), 0, 1)  # 20 x 40
    image = tmp_path / "a.jpg"
    Image.new("RGB", (40, 20)).save(image, exif=exif)
    task, settings = Task(source="folder/x", kind="dense", masks="m"), Settings((40, 20), 3, "stretch")

    def read_one(mask: Path, image: Path) -> tuple[Target, Findings]:
        findings = Findings()
        return read_masks("seg", task, [Item(image.name, path=image)], [mask], settings, findings), findings

    tagged = saved(tmp_path, "a.png", wide, exif=exif)
    turned = saved(tmp_path, "b.png", np.rot90(wide, -1))
    for mask in (tagged, turned):
        target, findings = read_one(mask, image)
        assert not findings.all and classes(target)[0][:20].max() == 0 and classes(target)[0][20:].min() == 1
    exif[0x0112] = 3
    upside = tmp_path / "b.jpg"
    Image.new("RGB", (20, 40)).save(upside, exif=exif)
    (warning,) = read_one(turned, upside)[1].all
    assert "1 images are turned or mirrored by their EXIF orientation, and their masks have no such tag: b.jpg" in str(
        warning
    )


def test_several_faults_are_one_error_each(tmp_path: Path) -> None:
    good = [saved(tmp_path, f"{n}.png", grey(BLOCK, 0, 1)) for n in range(3)]
    bad = [tmp_path / "lost.png", saved(tmp_path, "x.jpg", Image.new("L", (8, 8)))]
    target, findings = read([*good, *bad])
    (error,) = findings.all
    assert (
        "2 masks cannot be used. For example, the mask" in error.text
        and "lost.png' of '3.jpg' does not exist" in error.text
    )
    assert error.images == 2 and target.labelled.tolist() == [True] * 3 + [False] * 2


def test_masks_may_lie_beside_their_images(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for n in range(12):
        Image.fromarray(random.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)).save(tmp_path / f"{n:02}.png")
        Image.fromarray(grey(BLOCK, 0, 1)).save(tmp_path / f"{n:02}_mask.png")
    options = {"source": f"images/{tmp_path}", "kind": "dense"}
    data = Data(root=str(tmp_path / "root"))
    pool = build_pool(data, {"seg": Task(**options, masks="*_mask.png")}, image_size=(SIDE, SIDE))
    assert len(pool) == 12 and pool.targets["seg"].labelled.all()
    with pytest.raises(
        UserError, match=r"is the folder of the images; .* a pattern of their names, such as 'FOLDER/\*_mask"
    ):
        build_pool(data, {"seg": Task(**options, masks=str(tmp_path))}, image_size=(SIDE, SIDE))


def test_a_pool_tells_the_shares_and_the_counts(tmp_path: Path) -> None:
    (tmp_path / "im").mkdir()
    (tmp_path / "mask").mkdir()
    random = np.random.default_rng(0)
    for n in range(20):
        Image.fromarray(random.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)).save(tmp_path / "im" / f"{n:02}.png")
        Image.fromarray(grey(THREE, 0, 255, 0)).save(tmp_path / "mask" / f"{n + 2:02}.png")
    task = Task(source=f"images/{tmp_path / 'im'}", kind="dense", masks=str(tmp_path / "mask"))
    pool = build_pool(Data(root=str(tmp_path / "root")), {"seg": task}, image_size=(SIDE, SIDE))
    row = pool.summary()["tasks"]["seg"]
    share = pytest.approx(float((THREE == 1).mean()), abs=1e-9)
    assert row["pixel_shares"] == {"0": pytest.approx(1 - share.expected), "255": share} and row["classes"] == 2
    assert (row["unmatched_masks"], row["images_without_mask"], row["unlabelled_pixels"]) == (2, 2, 0)
    assert any("2 masks belong to no image" in text for text in pool.warnings)
