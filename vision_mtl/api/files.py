"""A run's files for notebooks: figures and tables by name, each read when it is first used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from vision_mtl.core.errors import unknown
from vision_mtl.inference.html import Markup, image, table

if TYPE_CHECKING:
    import pandas as pd

PICTURES, TABLES = (".png", ".jpg"), (".csv", ".parquet")


@dataclass(frozen=True)
class Picture:
    """A figure of a run: `path`, and itself where a notebook shows it."""

    path: Path

    def open(self) -> Image.Image:
        """The picture in full, for saving or cutting."""
        return Image.open(self.path)

    def _repr_html_(self) -> str:
        with self.open() as picture:
            return image(picture, self.path.stem)


class Figures(Mapping[str, Picture]):
    """The figures of a run by the name of their file without its suffix."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("*")) if folder.is_dir() else []
        self._paths = {file.stem: file for file in files if file.suffix in PICTURES}

    def __getitem__(self, name: str) -> Picture:
        """A figure; raises `UserError` naming the nearest."""
        if name not in self._paths:
            raise unknown("figure", name, self._paths)
        return Picture(self._paths[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def _repr_html_(self) -> str:
        return Markup(table([(name,) for name in self], ("figures",)))


class Tables(Mapping[str, "pd.DataFrame"]):
    """The tables of a run (CSV and parquet, at its top and in `tables/`) by the name of their file without suffix."""

    def __init__(self, folder: Path) -> None:
        files = [*sorted((folder / "tables").glob("*")), *sorted(folder.glob("*"))] if folder.is_dir() else []
        self._paths = {file.stem: file for file in files if file.suffix in TABLES and file.stat().st_size}

    def __getitem__(self, name: str) -> pd.DataFrame:
        """A table; raises `UserError` naming the nearest."""
        import pandas as pd  # late: half a second that only a table is worth

        if name not in self._paths:
            raise unknown("table", name, self._paths)
        path = self._paths[name]
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def _repr_html_(self) -> str:
        return Markup(table([(name,) for name in self], ("tables",)))
