"""`load_image.py` of an export loads image files as `--stage predict` does, and an export is checked with it."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vision_mtl.data.depth import ValueRange
from vision_mtl.data.resize import resize
from vision_mtl.export.from_files import check_from_files, header_sizes, run_samples
from vision_mtl.export.loading import LoadImage, loading_code, run_loader
from vision_mtl.inference.image_files import Frame
from vision_mtl.inference.restore import restore_model

FITS = ("stretch", "crop", "pad")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Fine texture over smooth colours: filters and decoders differ most there."""
    random = np.random.default_rng([height, width])
    smooth = cv2.resize(random.integers(0, 256, (4, 5, 3), dtype=np.uint8), (width, height))
    noisy = (smooth + random.normal(0, 25, smooth.shape)).clip(0, 255).astype(np.uint8)
    return noisy if channels == 3 else noisy[..., 0]


def files() -> dict[str, bytes]:
    colour, grey = Image.fromarray(photograph(190, 260)), Image.fromarray(photograph(190, 260, 1))
    turned = Image.Exif()
    turned[0x0112] = 6
    alpha = colour.copy()
    alpha.putalpha(Image.fromarray(photograph(190, 260, 1)))
    return {
        "jpeg": encoded(colour, "JPEG", quality=80),
        "grey jpeg": encoded(grey, "JPEG"),
        "turned jpeg": encoded(colour, "JPEG", exif=turned),
        "turned png": encoded(colour, "PNG", exif=turned),
        "cmyk jpeg": encoded(colour.convert("CMYK"), "JPEG"),
        "alpha": encoded(alpha, "PNG"),
        "grey alpha": encoded(alpha.convert("LA"), "PNG"),
        "palette": encoded(colour.quantize(32), "PNG"),
        "transparent palette": encoded(colour.quantize(32), "PNG", transparency=0),
        "bits": encoded(grey.convert("1"), "PNG"),
        "gif": encoded(colour.quantize(32), "GIF"),
        "webp": encoded(alpha, "WEBP"),
        "bmp": encoded(colour, "BMP"),
        "tiff": encoded(colour, "TIFF"),
        "turned avif": encoded(colour, "AVIF", exif=turned),
        "small": encoded(colour.resize((20, 11)), "PNG"),
        "small grey": encoded(grey.resize((20, 11)), "PNG"),
        "tall": encoded(colour.resize((9, 400)), "PNG"),
        "wide": encoded(colour.resize((400, 9)), "PNG"),
        "a pixel": encoded(colour.resize((1, 1)), "PNG"),
    }


FILES = files()


def loader(folder: Path, size: tuple[int, int], channels: int, fit: str, **about: object) -> LoadImage:
    path = folder / "load_image.py"
    path.write_text(loading_code({"image_size": size, "channels": channels, "fit": fit, **about}))
    return run_loader(path)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", FITS)
def test_every_file_is_loaded_as_predict_reads_it(tmp_path: Path, fit: str, channels: int) -> None:
    for size in ((32, 48), (64, 64), (250, 200)):
        load_image, frame = loader(tmp_path, size, channels, fit), Frame(size, channels, fit)
        for name, data in FILES.items():
            expected = frame.decode(data, name).pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255
            found = load_image(data)
            assert found.dtype == np.float32 and np.array_equal(found, expected), (name, size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["load_image.py"]  # no cache of compiled code


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(1, 70), st.sampled_from(FITS), st.booleans()
)
def test_any_size_is_loaded_as_predict_reads_it(
    tmp_path_factory: pytest.TempPathFactory, h: int, w: int, height: int, width: int, fit: str, grey: bool
) -> None:
    data = encoded(Image.fromarray(photograph(h, w, 1 if grey else 3)), "PNG")
    found = loader(tmp_path_factory.mktemp("any"), (height, width), 3, fit)(data)
    expected = Frame((height, width), 3, fit).decode(data, "x").pixels
    assert np.array_equal((found[0] * 255).round().astype(np.uint8).transpose(1, 2, 0), expected)


def test_an_eight_bit_model_refuses_deep_images(tmp_path: Path) -> None:
    deep = encoded(Image.fromarray(photograph(40, 50, 1).astype(np.uint16) * 257), "PNG")
    with pytest.raises(ValueError, match="more than 8 bits"):
        loader(tmp_path, (16, 16), 1, "stretch")(deep)


def test_a_model_of_deep_images_scales_by_its_range(tmp_path: Path) -> None:
    values = np.arange(1000, 1000 + 24 * 30, dtype=np.uint16).reshape(24, 30)
    ranges = {"folder/scans": {"low": 1000.0, "high": 2000.0}}
    load_image = loader(tmp_path, (24, 30), 1, "stretch", value_ranges=ranges)
    found = load_image(encoded(Image.fromarray(values), "PNG"))[0, 0]
    assert np.abs(found - (values - 1000) / 1000).max() < 1e-4
    assert load_image(encoded(Image.fromarray(values), "PNG"), 1000, 1100).max() == 1  # beyond the range
    white = load_image(encoded(Image.new("L", (9, 9), 255), "PNG"))
    assert white.min() == 1  # 8 bits have a range of their own


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_five_bands_of_any_size_and_order(tmp_path: Path, planes: str) -> None:
    values = np.random.default_rng(0).integers(0, 3000, (37, 51, 5), dtype=np.uint16)
    buffer = io.BytesIO()
    stored = values if planes == "contig" else np.moveaxis(values, 2, 0)
    tifffile.imwrite(buffer, stored, photometric="minisblack", planarconfig=planes)
    found = loader(tmp_path, (24, 24), 5, "stretch", value_ranges={"folder/x": {"low": 0.0, "high": 3000.0}})
    expected = Frame((24, 24), 5, "stretch", ValueRange(0, 3000)).decode(buffer.getvalue(), "x").pixels
    assert np.abs(found(buffer.getvalue())[0].transpose(1, 2, 0) - expected / 65535).max() < 2e-5


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("bands", [1, 3, 5])
def test_deep_images_of_any_number_of_bands(tmp_path: Path, bands: int, fit: str) -> None:
    """TIFF files of signed and of floating-point numbers, and PNG files of 16 bits; here all fits are equal."""
    smooth = np.linspace(-400, 1500, 40 * 60 * bands).reshape(40, 60, bands)
    load_image = loader(tmp_path, (20, 30), bands, fit, value_ranges={"folder/ct": {"low": -500.0, "high": 1500.0}})
    expected = resize(((smooth + 500) / 2000 * 65535).round().astype(np.uint16), (20, 30)) / 65535
    for kind in (np.int16, np.float32):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, smooth.astype(kind).squeeze(), photometric="minisblack", planarconfig="contig")
        assert np.abs(load_image(buffer.getvalue())[0].transpose(1, 2, 0) - expected).max() < 1e-3
    if bands == 3:
        deep = cv2.imencode(".png", (smooth[..., ::-1] + 500).astype(np.uint16))[1].tobytes()
        found = load_image(deep, low=0, high=2000)
        assert np.abs(found[0].transpose(1, 2, 0) - expected).max() < 1e-3


def test_eight_bit_images_of_many_bands(tmp_path: Path) -> None:
    pixels, buffer = np.random.default_rng(0).integers(0, 256, (24, 36, 5), np.uint8), io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="minisblack", planarconfig="contig")
    load_image = loader(tmp_path, (24, 36), 5, "stretch")
    assert np.array_equal(load_image(buffer.getvalue())[0].transpose(1, 2, 0), pixels.astype(np.float32) / 255)
    grey = load_image(encoded(Image.new("L", (36, 24), 51), "PNG"))
    assert grey.shape == (1, 5, 24, 36) and (grey == np.float32(0.2)).all()
    with pytest.raises(ValueError, match="more than 8 bits"):
        load_image(encoded(Image.fromarray(pixels[..., 0].astype(np.uint16)), "PNG"))


@pytest.fixture(scope="module")
def models(many_headed: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        (fit, chans): many_headed(root / f"{fit}-{chans}", fit=fit, chans=chans) for fit in FITS for chans in (1, 3)
    }


@pytest.mark.parametrize("chans", [1, 3])
@pytest.mark.parametrize("fit", FITS)
def test_files_give_the_predictions_of_predict(models, tmp_path: Path, fit: str, chans: int) -> None:
    model = restore_model(str(models[fit, chans]))[0]
    check = check_from_files(
        model, Frame((32, 48), chans, fit), [*FILES.items()], loader(tmp_path, (32, 48), chans, fit), {}
    )
    assert check.images == len(FILES) and check.labels_differing == 0 and not check.failed
    assert check.largest_difference < 1e-5 and check.warnings() == []


@pytest.mark.parametrize("wrong", ["border", "filter", "orientation"])
def test_another_preprocessing_fails_by_name(models, tmp_path: Path, wrong: str) -> None:
    """The check sees what was wrong before: black borders, bicubic interpolation; and a missing orientation."""
    code = loading_code({"image_size": (32, 48), "channels": 3, "fit": "pad"})
    changes = {
        "border": ("inner.mean((0, 1)).round()", "0"),
        "filter": ("cv2.INTER_AREA", "cv2.INTER_CUBIC"),
        "orientation": ("ImageOps.exif_transpose(opened)", "opened"),
    }
    assert changes[wrong][0] in code
    path = tmp_path / "load_image.py"
    path.write_text(code.replace(*changes[wrong]))
    model = restore_model(str(models["pad", 3]))[0]
    check = check_from_files(model, Frame((32, 48), 3, "pad"), [*FILES.items()], run_loader(path), {})
    (warning,) = check.warnings()
    assert "turned jpeg" in check.failed and "turned jpeg: another" in warning and check.largest_difference > 0.01
    assert f"of {len(FILES)} images, {len(check.failed)} give another prediction" in warning


def test_a_file_that_only_the_written_code_refuses_fails(models, tmp_path: Path) -> None:
    def refuse(data: bytes) -> np.ndarray:
        raise OSError("no decoder")

    model = restore_model(str(models["pad", 3]))[0]
    check = check_from_files(
        model, Frame((32, 48), 3, "pad"), [("a.png", FILES["small"]), ("b.png", b"no image")], refuse, {}
    )
    assert check.images == 1 and check.failed == {"a.png": "load_image refuses it (no decoder)"}


def test_samples_are_the_runs_own_images(image_folder: Path, tmp_path: Path, many_headed) -> None:
    state = restore_model(str(many_headed(tmp_path / "run", tasks=("shape",))))[1]
    state["data"] |= {"unlabelled": ["bundled/digits"], "root": str(tmp_path)}
    state["tasks"]["shape"]["source"] = f"folder/{image_folder}"
    found, missing = run_samples(state, 30)
    assert missing is None and len(found) == len(dict(found)) == 30
    files = [name for name, _ in found if name.startswith(str(image_folder))]
    assert len(files) == 15 and Path(files[0]).read_bytes() == dict(found)[files[0]]
    assert set(header_sizes(found)) == {(40, 40), (28, 28)}
    state["tasks"]["shape"]["source"] = "folder/private/place"
    found, missing = run_samples(state, 30)
    assert found == [] and missing is not None and "not here any more" in missing and "private/place" in missing
    assert run_samples(state, 0) == ([], "export.check_images is 0.")
