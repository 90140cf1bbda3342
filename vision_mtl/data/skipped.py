"""Tells which files of a folder were skipped: pictures in formats that are not read, other files, what systems left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from vision_mtl.data.findings import Finding
from vision_mtl.data.walk import Walk

SHOWN = 8  # suffixes or names given in a message
SYSTEM_SHOWN = 20  # the same for what systems leave behind, which has few names
# suffixes of pictures that are not read -> how to make readable ones
ADVICE: dict[tuple[str, ...], str] = {
    (".heic", ".heif", ".hif", ".jxl", ".jxr", ".hdp"): "Convert them, for example with `magick mogrify -format jpg`.",
    (".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".raf", ".orf", ".rw2", ".pef", ".raw"): (
        "Develop the raw photographs to JPEG or 16-bit TIFF, for example with `darktable-cli`."
    ),
    (".dcm", ".dicom", ".ima", ".nii", ".mha", ".mhd", ".nrrd"): (
        "Convert the scans to 16-bit PNG or TIFF slices, for example with pydicom or SimpleITK."
    ),
    (".svs", ".ndpi", ".mrxs", ".scn", ".czi", ".lif", ".nd2", ".vsi", ".oib"): (
        "Export the slides or stacks as TIFF or PNG tiles."
    ),
    (".svg", ".svgz", ".eps", ".ai", ".pdf", ".emf", ".wmf"): "Draw them as PNG, for example with Inkscape.",
    (".psd", ".psb", ".xcf", ".kra", ".exr", ".hdr", ".tga", ".dds", ".ico", ".icns", ".cur", ".pcx", ".sgi"): (
        "Export them as PNG or TIFF."
    ),
    (".npy", ".npz", ".mat", ".h5", ".hdf5", ".pt", ".pkl"): "Save the arrays as PNG or TIFF files.",
    (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp", ".mts"): (
        "Extract frames, for example with `ffmpeg -i FILE %05d.png`, and keep each video together with a group column."
    ),
    (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"): "Unpack archives that hold images.",
}
FAMILY = {suffix: advice for suffixes, advice in ADVICE.items() for suffix in suffixes}


def skipped_findings(where: str, found: Walk) -> list[Finding]:
    """Return what a walk of `where` skipped: warnings for pictures that are not read, notes for everything else."""
    findings = [
        Finding("error", f"{where}: the folder {folder!r} cannot be opened ({reason}).", "Change its permissions.")
        for folder, reason in found.closed
    ]
    by_family: dict[str, Counter[str]] = {}
    folders: dict[str, set[str]] = {}
    for (folder, suffix), count in found.skipped.items():
        advice = FAMILY.get(suffix.lower(), "")
        by_family.setdefault(advice, Counter())[suffix] += count
        folders.setdefault(advice, set()).add(folder or ".")
    others = by_family.pop("", Counter())
    for advice, suffixes in by_family.items():
        names = some(sorted(folders[advice]))
        text = f"{where}: skipped {counted(suffixes)} (in {names}): files of a format that is not read."
        findings.append(Finding("warning", text, advice, suffixes.total()))
    if others:
        findings.append(Finding("note", f"{where}: skipped other files: {counted(others)}.", images=others.total()))
    if found.left:
        text = f"{where}: skipped what systems leave behind: {counted(found.left, SYSTEM_SHOWN)}."
        findings.append(Finding("note", text, images=found.left.total()))
    if found.loops:
        text = f"{where}: links to a folder above themselves, or nowhere, are not followed: {some(found.loops)}."
        findings.append(Finding("note", text))
    if found.again:
        pairs = some([f"{link} (read as {folder})" for link, folder in found.again])
        findings.append(Finding("note", f"{where}: folders that a link reaches again are read once: {pairs}."))
    return findings


def counted(numbers: Mapping[str, int], shown: int = SHOWN) -> str:
    """Return the names with their numbers, the largest first: `9 .HEIC, 2 .txt`."""
    ordered = sorted(numbers.items(), key=lambda entry: (-entry[1], entry[0]))
    return some([f"{count} {name}" for name, count in ordered], shown)


def some(names: Iterable[str], shown: int = SHOWN) -> str:
    """Return the first names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:shown]) + (f" and {len(listed) - shown} more" if len(listed) > shown else "")
