"""What the masks of a task hold altogether, and which of it was hardly meant: two spellings, smoothed edges, rests.

A mask drawn with smoothing, resized by interpolation or saved as JPEG has values that occur only along edges, where a
pixel lies between its neighbours. Classes, even thin ones, are mostly the lowest or highest value around.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from vision_mtl.data.findings import Findings
from vision_mtl.data.mask_decoding import COLOUR, MaskFile, colour_name

SHOWN = 5  # values or files named in a finding
SMOOTHED = 8  # values along edges only; as many come from smoothing, fewer may be meant
RARE = 1e-3  # share of the pixels
FOREGROUND = 255  # in one of the two usual spellings of a mask with two classes; 1 in the other
TWICE = frozenset({0, 1, FOREGROUND})


@dataclass
class MaskSet:
    """What the masks of one task hold, file by file (`add`), and the findings about it (`report`)."""

    counts: Counter[int] = field(default_factory=Counter)
    between: Counter[int] = field(default_factory=Counter)
    patches: set[int] = field(default_factory=set)
    files: Counter[int] = field(default_factory=Counter)  # value -> number of files
    kinds: dict[tuple[frozenset[int], int | None], list[Path]] = field(default_factory=dict)  # values, top -> files
    colours: dict[int, tuple[str, Path]] = field(default_factory=dict)  # number -> its first palette colour
    repainted: list[str] = field(default_factory=list)  # numbers whose palette colour differs between files

    def add(self, file: Path, mask: MaskFile) -> None:
        """Add one mask."""
        self.counts.update(mask.counts)
        self.between.update(mask.between)
        self.files.update(mask.counts.keys())
        self.patches |= mask.patches
        self.kinds.setdefault((frozenset(mask.counts), mask.top), []).append(file)
        for number, colour in mask.palette.items():
            before, first = self.colours.setdefault(number, (colour, file))
            if before != colour:
                self.repainted.append(f"{number} is {before} in {first} and {colour} in {file}")

    @property
    def has_colours(self) -> bool:
        """True if a colour other than a grey occurs, so that colours are the classes."""
        return any(value >= COLOUR and not _is_grey(value) for value in self.counts)

    def class_of(self, value: int) -> int:
        """Return the number that a value means: a grey colour among greys is its grey value."""
        return value & 255 if value >= COLOUR and not self.has_colours else value

    def name(self, value: int) -> str:
        """Return the name of a value's class."""
        return colour_name(value) if value >= COLOUR and self.has_colours else str(self.class_of(value))

    def report(self, task: str, ignored: int | None, kept: Iterable[int], findings: Findings) -> None:
        """Add what is suspicious to `findings`; `kept` are the values that are left after resizing."""
        self._report_colours(task, findings)
        if not self.has_colours:
            self._report_spellings(task, ignored, findings)
        classes = [value for value in sorted(self.counts) if self.class_of(value) != ignored]
        thin = [value for value in classes if value not in self.patches]
        has_sides = len(self.patches) > 1  # areas that an edge can lie between
        smoothed = [value for value in thin if has_sides and 2 * self.between[value] > self.counts[value]]
        total = sum(self.counts.values())
        rare = [value for value in thin if value not in smoothed and self.counts[value] < RARE * total]
        self._report_smoothed(task, smoothed, findings)
        if rare:
            findings.warn(
                f"task {task!r}: values with few of the {total:,} pixels, which nowhere fill a square of 3 x 3: "
                f"{self._listed(rare)}.",
                "Each of them is a class. If they are rests of resizing or drawing, clean the masks.",
                max(self.files[value] for value in rare),
            )
        lost = [value for value in classes if value not in {*kept, *rare, *smoothed}]
        if lost:
            findings.warn(
                f"task {task!r}: values that vanish when the masks are resized, and are no class: "
                f"{self._listed(lost)}.",
                "Train on larger images (--image_size) to keep them.",
                max(self.files[value] for value in lost),
            )

    def _report_colours(self, task: str, findings: Findings) -> None:
        if self.repainted:
            findings.error(
                f"task {task!r}: palettes differ: {'; '.join(self.repainted[:2])}.",
                "If the numbers are the classes, save the masks in grey; if the colours are, save them as RGB.",
                len(self.repainted),
            )
        coloured = [f for (values, _), files in self.kinds.items() if max(values) >= COLOUR for f in files]
        numbered = [f for (values, _), files in self.kinds.items() if min(values) < COLOUR for f in files]
        if self.has_colours and numbered:
            findings.error(
                f"task {task!r}: {len(coloured)} masks have colours ({coloured[0]}) and {len(numbered)} have numbers "
                f"({numbered[0]}).",
                "Save all of them in one form.",
                min(len(coloured), len(numbered)),
            )

    def _report_spellings(self, task: str, ignored: int | None, findings: Findings) -> None:
        """Report foreground that is 1 in some files and 255, or the top of another depth, in others."""
        kinds = [({self.class_of(v) for v in values}, top, files) for (values, top), files in self.kinds.items()]
        low = [file for values, _, files in kinds if 1 in values for file in files]
        high = [file for values, _, files in kinds if FOREGROUND in values for file in files]
        together = any({1, FOREGROUND} <= values for values, _, _ in kinds)
        if ignored == FOREGROUND and low and high and not together and all(values <= TWICE for values, _, _ in kinds):
            findings.error(
                f"task {task!r}: {len(low)} masks hold 0 and 1 ({low[0]}), {len(high)} hold 0 and 255 ({high[0]}), and "
                "none holds 1 and 255: are these two spellings of one class?",
                f"Save all of them alike. If 255 marks pixels without a class, save those as 254 and add "
                f"--tasks.{task}.ignore 254.",
                min(len(low), len(high)),
            )
            return
        deep = {value for values, top, _ in kinds if top is None for value in values}
        for top in sorted({top for _, top, _ in kinds if top is not None}):
            shallow = [file for _, own, files in kinds if own == top for file in files]
            if deep and max(deep) > top and not deep & set(range(1, top + 1)):
                findings.error(
                    f"task {task!r}: {len(shallow)} masks have so few bits that their numbers end at {top} "
                    f"({shallow[0]}), and the others hold {', '.join(map(str, sorted(deep)[:SHOWN]))}: it is unclear "
                    "which numbers mean the same class.",
                    "Save all of them with 8 bits.",
                    len(shallow),
                )

    def _report_smoothed(self, task: str, smoothed: list[int], findings: Findings) -> None:
        if not smoothed:
            return
        concerned = max(self.files[value] for value in smoothed)
        text = (
            f"task {task!r}: values that occur only along edges, between those on both sides: {self._listed(smoothed)}"
        )
        if len(smoothed) >= SMOOTHED:
            findings.error(
                f"{text}. The masks were smoothed, resized by interpolation, or saved as JPEG.",
                "Save them without smoothing; masks of two classes can be thresholded at half.",
                concerned,
            )
        else:
            findings.warn(
                f"{text}. Each of them is a class.", "If the masks were smoothed, save them without.", concerned
            )

    def _listed(self, values: list[int]) -> str:
        """Return values with their pixels, as `7 (12 pixels), 9 (3 pixels)`."""
        shown = ", ".join(f"{self.name(value)} ({self.counts[value]:,} pixels)" for value in values[:SHOWN])
        return shown + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")


def _is_grey(value: int) -> bool:
    red, green, blue = (value >> 16) & 255, (value >> 8) & 255, value & 255
    return red == green == blue
