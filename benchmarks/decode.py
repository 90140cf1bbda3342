"""How fast are image files decoded, against the libraries that one would take for it?

    python benchmarks/decode.py [--blocks 15] [--clock wall]

Photographs (scikit-image's, resized, with a little noise so that enlarged ones are no easier than real ones) as JPEG of
quality 90 and as PNG, at 64, 160, 224 and 1024 pixels: whole, into RGB arrays; then brought to 64 or 224 pixels, as a
store or a stream brings them. Ours looks at the headers (formats, size, end, EXIF orientation), which the others do not
all do, and refuses truncated files; the others are called as their manuals have it. One thread decodes one image after
the other. Writes `benchmarks/results/decode.json`. Two minutes on one core.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import cv2
import kornia_rs
import numpy as np
import torch
from PIL import Image
from skimage import data

from benchmarks.interleave import CLOCKS, interleave, shown, speed_ratio, summary
from benchmarks.record import write
from vision_mtl.core.torchvision_ops import install
from vision_mtl.data.decode import decode_bytes, decode_fitted

SIDES = (64, 160, 224, 1024)
TARGETS = ((160, 64), (224, 64), (1024, 64), (1024, 224))  # from, to
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
QUALITY, NOISE = 90, 4.0  # of a JPEG file; grey levels
CALL_PIXELS = 1 << 21  # decoded in one call: some 10 to 50 ms
OURS = "ours"
Decode = Callable[[bytes], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    missing: dict[str, str] = {}
    rows = []
    for kind in ("jpeg", "png"):
        for side in SIDES:
            rows.append(measure(kind, side, None, whole(kind, missing), given.blocks, given.clock))
        for side, target in TARGETS:
            rows.append(measure(kind, side, target, fitted(kind, target), given.blocks, given.clock))
    write("decode", {"clock": given.clock, "quality": QUALITY, "missing": missing, "rows": rows})
    names = list(dict.fromkeys(name for row in rows for name in row["to_ours"]))
    print(f"| file | to | ours, images/s | {' | '.join(f'ours / {name}' for name in names)} |")
    print(f"|---|---|---|{'---|' * len(names)}")
    for row in rows:
        ratios = (shown(row["to_ours"][name]) if name in row["to_ours"] else "" for name in names)
        print(f"| {row['kind']} {row['side']} | {row['target'] or 'whole'} | {row['images_per_second'][OURS]:,.0f} | "
              f"{' | '.join(ratios)} |")  # fmt: skip
    for name, why in missing.items():
        print(f"{name} is left out: {why}")


def measure(
    kind: str, side: int, target: int | None, decoders: dict[str, Decode], blocks: int, clock: str
) -> dict[str, Any]:
    """Images a second of each decoder on files of one kind and size, and ours against each."""
    files = encoded(kind, side)
    repeats = max(1, CALL_PIXELS // (side * side * len(files)))

    def call(decode: Decode) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeats):
                for file in files:
                    decode(file)

        return run

    size = (target or side,) * 2
    reference, differences = decoders["opencv"](files[0]).astype(int), {}
    for name, decode in decoders.items():
        image = decode(files[0])
        differences[name] = float(np.abs(image.astype(int) - reference).mean())
        assert image.shape == (*size, 3) and differences[name] < 10, (name, image.shape, differences)
    seconds = interleave({name: call(decode) for name, decode in decoders.items()}, blocks=blocks, clock=clock)
    images = repeats * len(files)
    return {
        "kind": kind,
        "side": side,
        "target": target,
        "bytes_per_pixel": sum(map(len, files)) / len(files) / side**2,
        "images_per_second": {name: images / summary(values)["median"] for name, values in seconds.items()},
        "difference_to_opencv": differences,
        "to_ours": {name: speed_ratio(seconds, OURS, name) for name in decoders if name != OURS},
    }


def encoded(kind: str, side: int) -> list[bytes]:
    """The photographs at one size."""
    random, found = np.random.default_rng(0), []
    for name in PHOTOS:
        image = getattr(data, name)()
        method = cv2.INTER_AREA if side < image.shape[0] else cv2.INTER_CUBIC
        noisy = cv2.resize(image, (side, side), interpolation=method) + random.normal(0, NOISE, (side, side, 3))
        options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if kind == "jpeg" else []
        pixels = noisy.clip(0, 255).astype(np.uint8)[..., ::-1]
        found.append(cv2.imencode(f".{kind}", pixels, options)[1].tobytes())
    return found


def whole(kind: str, missing: dict[str, str]) -> dict[str, Decode]:
    """Each library's way to an RGB array; `missing` is told which do not work here, and why."""
    found: dict[str, Decode] = {
        OURS: lambda file: decode_bytes(file, "file"),
        "opencv": lambda file: cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB),
        "pillow": lambda file: np.asarray(Image.open(io.BytesIO(file)).convert("RGB")),
    }
    try:
        found["torchvision.io"] = _torchvision()
    except Exception as error:  # whatever a library raises that is built without its decoders
        missing["torchvision.io"] = str(error).partition(".")[0]
    if kind == "jpeg":
        found["kornia_rs"] = lambda file: np.asarray(kornia_rs.io.decode_image_jpegturbo(file, "rgb"))
        try:
            found["simplejpeg"] = _simplejpeg()
        except ImportError as error:
            missing["simplejpeg"] = f"{error} (pip install simplejpeg==1.9.0)"
    else:
        found["kornia_rs"] = _kornia_png
    return found


def fitted(kind: str, target: int) -> dict[str, Decode]:
    """Ways to an RGB array of one size: Pillow and simplejpeg scale a JPEG file while they decode it, as ours does."""
    size = (target, target)

    def averaged(image: np.ndarray) -> np.ndarray:
        return image if image.shape[:2] == size else cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def pillow(file: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(file))
        image.draft("RGB", size)
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))

    found: dict[str, Decode] = {
        OURS: lambda file: decode_fitted(file, "file", size, 3, "stretch")[0],
        "opencv": lambda file: averaged(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB)),
        "pillow": pillow,
    }
    if kind == "jpeg":
        try:
            decode = _simplejpeg(min_height=target, min_width=target, min_factor=1)
            found["simplejpeg"] = lambda file: averaged(decode(file))
        except ImportError:
            pass  # said of whole images
    return found


def _torchvision() -> Decode:
    install()
    from torchvision.io import decode_image

    decode_image(torch.from_numpy(np.frombuffer(encoded("jpeg", 64)[0], np.uint8).copy()))  # fails where it cannot
    return lambda file: decode_image(torch.frombuffer(bytearray(file), dtype=torch.uint8)).permute(1, 2, 0).numpy()


def _simplejpeg(**options: int) -> Decode:
    import simplejpeg

    return lambda file: simplejpeg.decode_jpeg(file, **options)


def _kornia_png(file: bytes) -> np.ndarray:
    shape = int.from_bytes(file[20:24], "big"), int.from_bytes(file[16:20], "big")  # which it asks for, of the header
    return np.asarray(kornia_rs.io.decode_image_png_u8(file, shape, "rgb"))


if __name__ == "__main__":
    main()
