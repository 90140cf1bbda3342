"""`hfds/NAME`: a Hugging Face dataset, from the hub or from a folder on disk.

NAME is a name for `datasets.load_dataset` (`user/set` or `user/set@config`), a folder of image, zip or parquet files,
or a folder written by `save_to_disk`. Zip files are read without unpacking; other archives are unpacked below
`data.root` after a check of their expanded size. Official splits are kept; all class, text, integer and boolean columns
are label columns.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any
from zipfile import ZipFile

import numpy as np

from vision_mtl.core.errors import UserError
from vision_mtl.data.archives import SUFFIXES, check_expansion, read_member
from vision_mtl.data.decode import UnreadableImage, decode_bytes, file_bytes
from vision_mtl.data.labels import SPLIT_WORDS
from vision_mtl.data.source import SOURCES, Item

ZIP, ARCHIVED = "zip://", "::"  # `datasets` writes an image in a zip file as zip://INSIDE::ARCHIVE
LABEL_TYPES = ("string", "large_string", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


@SOURCES.register("hfds")
class Hfds:
    """All rows of all splits of a dataset; the image column is the first one of image type."""

    def __init__(self, rest: str, root: Path) -> None:
        self.rest, self.cache = rest, root / "huggingface"
        self._archives: dict[str, ZipFile] = {}
        self._opening = Lock()

    @property
    def version(self) -> str:
        """The fingerprints that `datasets` computes for the loaded data."""
        return "1 " + " ".join(f"{name}:{split._fingerprint}" for name, split in self._splits.items())

    def items(self) -> list[Item]:
        return [
            Item(f"{name}/{row:07d}", labels=labels, split=SPLIT_WORDS.get(name.lower()))
            for name, split in self._splits.items()
            for row, labels in enumerate(_labels(split))
        ]

    def read(self, item: Item) -> np.ndarray:
        return decode_bytes(self.encoded(item), item.identity)

    def encoded(self, item: Item) -> bytes:
        name, row = item.identity.split("/")
        value = self._images[name][int(row)][self._column]
        if not value or not (value.get("bytes") or value.get("path")):
            raise UnreadableImage(item.identity, "the row contains no image")
        if value.get("bytes") is not None:
            return value["bytes"]
        inside, _, archive = value["path"].partition(ARCHIVED)
        if archive:
            return read_member(self._archive(archive), inside[len(ZIP) :], item.identity)
        path = Path(value["path"])
        if not path.is_file():
            raise UnreadableImage(item.identity, f"there is no file {str(path)!r}")
        return file_bytes(path)

    def _archive(self, path: str) -> ZipFile:
        """Return the zip archive at `path`, opened once; several threads may read from it."""
        with self._opening:
            if path not in self._archives:
                self._archives[path] = ZipFile(path)
            return self._archives[path]

    @cached_property
    def _splits(self) -> dict[str, Any]:
        import datasets  # late: it takes a second

        name, _, config = self.rest.partition("@")
        folder = Path(name).expanduser()
        try:
            if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
                found = datasets.load_from_disk(str(folder))
            else:
                found = _load(str(folder) if folder.is_dir() else name, config or None, str(self.cache))
        except UserError:
            raise
        except Exception as error:  # the library raises what its many back ends raise
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            raise UserError(
                f"hfds/{self.rest} could not be loaded ({type(error).__name__}: {reason}). Check the name at "
                "https://huggingface.co/datasets, or download it by hand and give its folder: hfds/FOLDER."
            ) from error
        return dict(found) if isinstance(found, dict) else {"all": found}

    @cached_property
    def _column(self) -> str:
        import datasets

        features = next(iter(self._splits.values())).features
        column = next((name for name, kind in features.items() if isinstance(kind, datasets.Image)), None)
        if column is None:
            raise UserError(f"hfds/{self.rest} has no image column; its columns are {', '.join(features)}.")
        return column

    @cached_property
    def _images(self) -> dict[str, Any]:
        """The image column of each split, without decoding by `datasets`."""
        import datasets

        plain = datasets.Image(decode=False)
        return {
            name: split.select_columns([self._column]).cast_column(self._column, plain)
            for name, split in self._splits.items()
        }


def _load(name: str, config: str | None, cache: str) -> Any:
    """Load a dataset as `datasets.load_dataset` does, with a check of each archive before it is unpacked or read."""
    import datasets

    class CheckingDownloads(datasets.DownloadManager):
        def _download_single(self, url_or_filename: str, download_config: datasets.DownloadConfig) -> str:
            packed = download_config.copy()
            packed.extract_compressed_file = False
            fetched = super()._download_single(url_or_filename, packed)
            if str(url_or_filename).lower().endswith(SUFFIXES):  # the caller unpacks or reads it
                check_expansion(Path(fetched))
            return super()._download_single(url_or_filename, download_config)

    builder = datasets.load_dataset_builder(name, config, cache_dir=cache)
    settings = datasets.DownloadConfig(
        cache_dir=builder._cache_downloaded_dir,
        use_etag=False,
        token=builder.token,
        storage_options=builder.storage_options,
    )
    place = {"data_dir": builder.config.data_dir, "base_path": builder.base_path, "record_checksums": False}
    manager = CheckingDownloads(dataset_name=builder.dataset_name, download_config=settings, **place)
    builder.download_and_prepare(dl_manager=manager)
    return builder.as_dataset()


def _labels(split: Any) -> list[dict[str, str]]:
    """Return each row's labels as text; a class number of -1 and an empty cell are no label."""
    import datasets

    rows: list[dict[str, str]] = [{} for _ in range(len(split))]
    for name, kind in split.features.items():
        if isinstance(kind, datasets.ClassLabel):
            texts = [None if v is None or v < 0 else kind.int2str(v) for v in split[name]]
        elif isinstance(kind, datasets.Value) and kind.dtype in LABEL_TYPES:
            texts = [None if v is None else str(v) for v in split[name]]
        else:
            continue
        for row, text in zip(rows, texts, strict=True):
            if text:
                row[name] = text
    return rows
