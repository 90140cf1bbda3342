"""`hfds/NAME`: a Hugging Face dataset, from the hub or from a folder on disk.

NAME is a name for `datasets.load_dataset` (`user/set` or `user/set@config`), a folder of image, zip or parquet files,
or a folder written by `save_to_disk`. Zip files are read without unpacking; other archives are unpacked below
`data.root` after a check of their expanded size. Official splits are kept; all class, text, number and boolean columns
are label columns. The image column is the only one of image type, or the one that option `image` names, which may also
hold encoded images (bytes, or structs with `bytes` and `path`) or paths of image files.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any
from zipfile import ZipFile

import numpy as np

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.data.archives import DAMAGED, SUFFIXES, check_expansion, read_member
from vision_mtl.data.decode import UnreadableImage, decode_bytes, file_bytes
from vision_mtl.data.findings import Finding
from vision_mtl.data.labels import SPLIT_WORDS
from vision_mtl.data.source import SOURCES, Item
from vision_mtl.data.split_names import split_of, unnamed_parts

ZIP, ARCHIVED = "zip://", "::"  # `datasets` writes an image in a zip file as zip://INSIDE::ARCHIVE
TEXTS = ("string", "large_string", "string_view")
BYTES = ("binary", "large_binary", "binary_view")
FLOATS = ("float16", "float32", "float64")
LABEL_TYPES = (*TEXTS, "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), *FLOATS)


@SOURCES.register("hfds")
class Hfds:
    """All rows of all splits of a dataset."""

    has_columns = True

    def __init__(self, rest: str, root: Path, image: str | None = None) -> None:
        self.rest, self.cache, self.image = rest, root / "huggingface", image
        self.findings: list[Finding] = []
        self.unusable: dict[str, str] = {}
        self._archives: dict[str, ZipFile] = {}
        self._opening = Lock()

    @property
    def version(self) -> str:
        """The fingerprints that `datasets` computes for the loaded data, and the chosen image column."""
        prints = "1 " + " ".join(f"{name}:{split._fingerprint}" for name, split in self._splits.items())
        return prints if self.image is None else f"{prints} {self.image}"

    def items(self) -> list[Item]:
        source = f"hfds/{self.rest}"
        self._check_columns()
        found = [
            Item(f"{name}/{row:07d}", labels=labels, split=split_of(name))
            for name, split in self._splits.items()
            for row, labels in enumerate(self._labels(name, split))
        ]
        advice = (
            "To leave them out, load the set with the datasets library, delete these splits from the DatasetDict, and "
            "give the folder that its save_to_disk writes."
        )
        sizes = {name: len(split) for name, split in self._splits.items()}
        self.findings += unnamed_parts(source, sizes, "splits", advice)
        if guessed := {n: split for n in sizes if n.lower() not in SPLIT_WORDS and (split := split_of(n))}:
            read = ", ".join(f"{name} as {split}" for name, split in guessed.items())
            self.findings.append(Finding("note", f"{source}: splits are read by a word in their names: {read}."))
        if self.unusable:
            columns = ", ".join(f"{name} ({what})" for name, what in list(self.unusable.items())[:8])
            self.findings.append(Finding("note", f"{source}: these columns are no labels: {columns}."))
        return found

    def read(self, item: Item) -> np.ndarray:
        return decode_bytes(self.encoded(item), item.identity)

    def encoded(self, item: Item) -> bytes:
        name, _, row = item.identity.rpartition("/")
        value = self._images[name][int(row)][self._column]
        content, place = _content(value)
        if content is not None:
            return content
        if not place:
            raise UnreadableImage(item.identity, "the row contains no image")
        if place.startswith(ZIP):
            inside, _, archive = place[len(ZIP) :].partition(ARCHIVED)
            return read_member(self._archive(archive, item.identity), inside, item.identity)
        path = next((p for p in (Path(place), Path(self._name).expanduser() / place) if p.is_file()), None)
        if path is None:
            raise UnreadableImage(item.identity, f"there is no file {place!r}")
        return file_bytes(path)

    def _archive(self, path: str, identity: str) -> ZipFile:
        """Return the zip archive at `path`, opened once; several threads may read from it."""
        with self._opening:
            if path not in self._archives:
                try:
                    self._archives[path] = ZipFile(path)
                except DAMAGED as error:
                    raise UnreadableImage(identity, f"the archive {path!r} cannot be opened: {error}") from error
            return self._archives[path]

    @property
    def _name(self) -> str:
        """The name or folder without @CONFIG; a folder's name may contain @."""
        name, at, _ = self.rest.rpartition("@")
        return name if at and not Path(self.rest).expanduser().is_dir() else self.rest

    @cached_property
    def _splits(self) -> dict[str, Any]:
        import datasets  # late: it takes a second

        folder = Path(self._name).expanduser()
        config = self.rest[len(self._name) + 1 :] or None
        try:
            if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
                found = datasets.load_from_disk(str(folder))
            else:
                found = _load(str(folder) if folder.is_dir() else self._name, config, str(self.cache))
        except UserError:
            raise
        except Exception as error:  # the library raises what its many back ends raise
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            raise UserError(
                f"hfds/{self.rest} could not be loaded ({type(error).__name__}: {reason}). Check the name at "
                "https://huggingface.co/datasets, or download it by hand and give its folder: hfds/FOLDER."
            ) from error
        splits = dict(found) if isinstance(found, dict) else {"all": found}
        return {name: split.with_format(None) for name, split in splits.items()}  # a saved format may hide columns

    @cached_property
    def _column(self) -> str:
        """The image column. Raises `UserError` if there is none or several to choose from."""
        features = next(iter(self._splits.values())).features
        if self.image is not None:
            if self.image not in features:
                raise unknown(f"image column of hfds/{self.rest}", self.image, features)
            if not _holds_images(features[self.image]):
                raise UserError(
                    f"hfds/{self.rest}: column {self.image!r} holds no images but {_type_name(features[self.image])}; "
                    f"wanted are images, encoded images (bytes), or paths. {self._columns_text(features)}"
                )
            return self.image
        found = [name for name, kind in features.items() if _is_image(kind)]
        if len(found) == 1:
            return found[0]
        option = "choose one with --tasks.NAME.image (for images without labels --data.image)"
        if found:
            raise UserError(f"hfds/{self.rest} has several image columns, {', '.join(found)}: {option}.")
        usable = [name for name, kind in features.items() if _holds_images(kind)]
        raise UserError(
            f"hfds/{self.rest} has no image column. {self._columns_text(features)} "
            + (f"If {' or '.join(usable[:4])} holds encoded images or paths, {option}." if usable else "")
        )

    @staticmethod
    def _columns_text(features: Any) -> str:
        return f"Its columns are {', '.join(f'{name} ({_type_name(kind)})' for name, kind in features.items())}."

    def _check_columns(self) -> None:
        """Raise `UserError` unless all splits have the same image column, of the same type."""
        kind = next(iter(self._splits.values())).features[self._column]
        for name, split in self._splits.items():
            if repr(split.features.get(self._column)) != repr(kind):
                raise UserError(
                    f"hfds/{self.rest}: split {name} has no image column {self._column!r} like the other splits. "
                    f"{self._columns_text(split.features)}"
                )

    @cached_property
    def _images(self) -> dict[str, Any]:
        """The image column of each split, without decoding by `datasets`."""
        import datasets

        column, plain = self._column, datasets.Image(decode=False)
        alone = {name: split.select_columns([column]) for name, split in self._splits.items()}
        return {n: s.cast_column(column, plain) if _is_image(s.features[column]) else s for n, s in alone.items()}

    def _labels(self, name: str, split: Any) -> list[dict[str, str]]:
        """Return each row's labels as text; a class number of -1, a NaN and a blank cell are no label."""
        rows: list[dict[str, str]] = [{} for _ in range(len(split))]
        columns = {column: kind for column, kind in split.features.items() if column != self._column}
        if split.builder_name == "imagefolder" and _names_splits(columns.get("label")):
            del columns["label"]  # the library takes the folders train and test for classes, too
            self.unusable["label"] = "names of splits"
        self.unusable |= {column: _type_name(kind) for column, kind in columns.items() if not _is_label(kind)}
        usable = [column for column, kind in columns.items() if _is_label(kind)]
        if not usable:
            return rows
        table = split.select_columns(usable).with_format("arrow")[:]
        for column in usable:
            texts = _texts(table.column(column).to_pylist(), columns[column], f"hfds/{self.rest}, {name}, {column}")
            for row, text in zip(rows, texts, strict=True):
                if text and text.strip():
                    row[column] = text
        return rows


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
    _label_archives_by_folder(builder)
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


def _label_archives_by_folder(builder: Any) -> None:
    """Let images in an archive get the names of their folders inside it as labels, as the library documents.

    `datasets` 5.2 gives all of them the name of the archive's own folder.
    """
    from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder

    if not isinstance(builder, FolderBasedBuilder):
        return
    generators = builder._split_generators

    def without_archives(manager: Any) -> Any:
        found = generators(manager)
        for split in found:
            files = split.gen_kwargs["files"]
            split.gen_kwargs["files"] = tuple((None if folder else file, folder, all_) for file, folder, all_ in files)
        return found

    builder._split_generators = without_archives


def _names_splits(kind: Any) -> bool:
    """Return True for a class column whose classes are names of splits."""
    return all(name.lower() in SPLIT_WORDS for name in getattr(kind, "names", [""]))


def _content(value: Any) -> tuple[bytes | None, str]:
    """Return (bytes of an encoded image or None, path or "") of a row's value in the image column."""
    if isinstance(value, dict):
        content, place = value.get("bytes"), value.get("path") or ""
        return (content if content or (content is not None and place) else None), place
    return (value, "") if isinstance(value, bytes) and value else (None, value if isinstance(value, str) else "")


def _is_image(kind: Any) -> bool:
    import datasets

    return isinstance(kind, datasets.Image)


def _holds_images(kind: Any) -> bool:
    """Return True for columns of images, of encoded images, and of paths."""
    import datasets

    if isinstance(kind, dict):
        return "bytes" in kind and _is_value(kind["bytes"], BYTES)
    return isinstance(kind, datasets.Image) or _is_value(kind, (*TEXTS, *BYTES))


def _is_value(kind: Any, types: tuple[str, ...]) -> bool:
    import datasets

    return isinstance(kind, datasets.Value) and kind.dtype in types


def _is_label(kind: Any) -> bool:
    import datasets

    return isinstance(kind, datasets.ClassLabel) or (
        isinstance(kind, datasets.Value) and (kind.dtype in LABEL_TYPES or kind.dtype.startswith("decimal"))
    )


def _type_name(kind: Any) -> str:
    """Return a column's type in a few characters."""
    import datasets

    text = kind.dtype if isinstance(kind, datasets.Value) else " ".join(str(kind).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _texts(values: list[Any], kind: Any, where: str) -> list[str | None]:
    """Return label values as text: the names of classes, and numbers with all their digits."""
    import datasets

    if not isinstance(kind, datasets.ClassLabel):
        return [None if value is None or value != value else _text(value) for value in values]
    if blank := [number for number, name in enumerate(kind.names) if not name.strip()]:
        raise UserError(f"{where}: class {blank[0]} has an empty name, and a blank is no label. Give it a name.")
    known = set(range(len(kind.names)))
    if wrong := sorted({value for value in values if value is not None and value >= 0} - known):
        raise UserError(f"{where}: row {values.index(wrong[0])} has class {wrong[0]}, but {len(kind.names)} are named.")
    return [None if value is None or value < 0 else kind.names[value] for value in values]


def _text(value: Any) -> str:
    return repr(float(value)) if isinstance(value, float | np.floating) else str(value)
