"""The tables of timings, memory and what else does not depend on which images are held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.interleave import shown

Record = Mapping[str, Any]
Rows = list[list[str]]  # the first is the header

SETTINGS = {
    "again": "again",
    "foreach kernel": "foreach AdamW",
    "other layout": "other layout",
    "half the threads": "one thread",
    "compiled": "compiled",
    "memory kept": "freed memory kept",
}
PEERS = ("opencv", "pillow", "kornia_rs", "simplejpeg")
SERIES = {  # what is timed, and against what
    "step_by_images": "a training step, images in the pool",
    "step_by_heads": "a training step, task heads",
    "step_by_cells": "a training step, cells per side",
    "damage_by_cells": "one hidden cell, cells per side",
    "gather_by_images": "gathering a batch, images in the pool",
    "batch_by_images": "drawing a batch, images in the pool",
    "step_by_batch": "a training step, batch size",
    "step_by_side": "a training step, pixels per side",
    "near_duplicates": "finding near duplicates, images in the pool",
}


def step(data: Record) -> Rows:
    """Return the speed of a training step relative to its model's arithmetic, and the shares of what is added."""
    header = ["backbone", "model alone, images a second", "images in memory", "in a memory map", "damage", "losses"]
    return [
        header,
        *(
            [
                row["backbone"],
                f"{data['batch'] / row['seconds']['bound']['median']:,.0f}",
                *(shown(row["to_bound"][place]) for place in ("memory", "memory_map")),
                *(f"{100 * row['phases'][phase]:.1f} %" for phase in ("damage", "losses")),
            ]
            for row in data["rows"]
        ),
    ]


def settings(data: Record) -> Rows:
    """Return the speed of a training step with one setting changed."""
    header = ["backbone", "default, images a second", *SETTINGS.values()]
    return [
        header,
        *(
            [
                row["backbone"],
                f"{data['batch'] / row['seconds']['default']['median']:,.0f}",
                *(shown(row["speed"][key]) for key in SETTINGS),
            ]
            for row in data["rows"]
        ),
    ]


def visible(data: Record) -> Rows:
    """Return how many times as fast encoding visible tokens is as encoding all."""
    masks = list(data["rows"][0]["to_all"])
    header = ["precision", *masks]
    return [header, *([row["precision"], *(shown(row["to_all"][mask]) for mask in masks)] for row in data["rows"])]


def peers_speed(data: Record) -> Rows:
    """Return how many times a peer's images a second ours processes."""
    header = ["ours", "peer", "ours, images a second", "peer, images a second", "ratio"]
    rates = data["rates"]
    found = [header]
    for name, ratio in data["ratios"].items():
        ours, _, peer = name.partition(" to ")
        found.append([ours, peer, *(f"{rates[one]['images_per_second']:,.0f}" for one in (ours, peer)), shown(ratio)])
    return found


def decode(data: Record) -> Rows:
    """Return the decoded images per second, and our speed relative to each peer."""
    header = ["file", "to", "ours, images a second", *PEERS]
    found = [header]
    for row in data["rows"]:
        size = "whole" if row["target"] is None else str(row["target"])
        ratios = [f"{row['to_ours'][peer]['value']:.2f}" if peer in row["to_ours"] else "" for peer in PEERS]
        rate = f"{row['images_per_second']['ours']:,.0f}"
        found.append([f"{row['kind'].upper()} {row['side']}", size, rate, *ratios])
    return found


def pretexts(data: Record) -> Rows:
    """Return each damage's speed relative to its fastest peer and to kornia's class, with either allocator."""
    header = ["damage", "pixels", "allocator", "ours, images a second", "fastest peer", "to it"]
    header += ["to kornia's class", "at most"]
    return [
        header,
        *(
            [
                *(row["damage"], str(row["image_size"]), row["allocator"]),
                *(f"{row['batch'] / row['seconds']['ours']['median']:,.0f}", row["fastest"]),
                *(shown(row["to_fastest"]), shown(row["to_kornia_class"])),
                f"{row['at_most_to_kornia_class']['value']:.1f}",
            ]
            for row in data["rows"]
        ),
    ]


def scaling(data: Record) -> Rows:
    """Return the exponents with which costs grow."""
    by_name = {row["cost"]: row for row in data["rows"]}
    found = [["cost, against", "range", "exponent"]]
    for name, what in SERIES.items():
        if row := by_name.get(name):
            span = f"{row['numbers'][0]:,} to {row['numbers'][-1]:,}"
            found.append([what, span, f"{digits(row['exponent'])} ({digits(row['low'])} to {digits(row['high'])})"])
    return found


def digits(value: float) -> str:
    """Return a number with two digits, and 0.00 without a sign."""
    return f"{round(value, 2) + 0.0:.2f}"


def stream(data: Record) -> Rows:
    """Return the speed of a step from the store and from a stream, relative to its model's arithmetic."""
    wall, alone = data["wall"], data["alone"]
    found = [["", "images a second", "relative to the model alone"]]
    for name, label in (("bound", "model alone"), ("stored", "from the store"), ("streamed", "streamed")):
        ratio = "" if name == "bound" else shown(wall["to_bound"][name])
        found.append([label, f"{data['batch'] / wall['seconds'][name]['median']:,.0f}", ratio])
    found.append(["the stream alone", f"{alone['images_per_second']:,.0f}", ""])
    memory = f"{alone['memory_mb']['first_epoch']:,.0f} and {alone['memory_mb']['last_epoch']:,.0f} MB"
    return [*found, ["memory after the first and the last epoch", memory, ""]]


def scoring(data: Record) -> Rows:
    """Return the seconds in which discovery scores its images."""
    whole = data["median"]
    return [
        ["images", "damages of each", "backbone", "threads", "seconds", "of these the network"],
        [
            *(f"{data['images']:,}", str(data["grid"] ** 2), data["backbone"], str(data["threads"])),
            *(f"{whole['seconds']:.0f}", f"{100 * whole['phases']['network']:.0f} %"),
        ],
    ]


def startup(data: Record) -> Rows:
    """Return the seconds until the first step, and memory."""
    found = [["what", "value"]]
    if start := data.get("start"):
        found.append(["`train.py --help`", f"{start['help_seconds']:.2f} seconds"])
        found.append(["from the command to the end of the first step", f"{start['first_step_seconds']:.1f} seconds"])
    if default := data.get("default"):
        found.append(["highest memory of the default run", f"{default['peak_mb']:,.0f} MB"])
    if long := data.get("long"):
        steps = long["steps"]
        early = next(s for s in steps if s["step"] >= steps[-1]["step"] / 5)
        found += [[f"memory after {s['step']:,} steps", f"{s['mb']:,.0f} MB"] for s in (early, steps[-1])]
    return found


def balancing(data: Record) -> Rows:
    """Return how many aggregators train, and the memory of tasks."""
    rows, memory = data["aggregators"], data["peak_megabytes"]
    passed = sum(row["status"] == "completed" for row in rows.values())
    return [
        ["aggregators that train", "memory with 2 tasks", "with 8 tasks", "ratio"],
        [f"{passed} of {len(rows)}", *(f"{memory[n]:,.0f} MB" for n in "28"), f"{data['ratio_8_to_2']:.2f}"],
    ]


def probe(data: Record) -> Rows:
    """Return the seconds of a linear probe."""
    header = ["strength (C)", "seconds", "processor seconds", "validation accuracy"]
    return [
        header,
        *(
            [row["C"], f"{row['seconds']:.1f}", f"{row['cpu_seconds']:.1f}", f"{row['val_accuracy']:.3f}"]
            for row in data["rows"]
        ),
    ]


def passed(data: Record) -> Rows:
    """Return how many modules of timm passed."""
    return [["modules", "passed", "timm"], [str(data["of"]), str(data["passed"]), data["timm"]]]


def faults(data: Record) -> Rows:
    """Return the runs that were interrupted, and how many ended bit-identical to an undisturbed one."""
    found = [["interrupted by", "stage", "interruptions", "runs", "bit-identical"]]
    for name, row in data.items():
        kind, _, stage = name.partition(": ")
        if kind == "stages":
            found.append(["kills", stage, str(row["kills"]), str(row["runs"]), str(row["identical"])])
        else:
            found.append(["a full disk", stage, str(row["errors"]), str(row["moments"]), str(row["identical"])])
    return found


TABLES: dict[str, Callable[[Record], Rows]] = {
    "step": step,
    "settings": settings,
    "visible": visible,
    "decode": decode,
    "pretexts": pretexts,
    "scaling": scaling,
    "stream": stream,
    "scoring": scoring,
    "startup": startup,
    "balancing": balancing,
    "probe": probe,
    "architectures": passed,
    "cut_architectures": passed,
    "faults": faults,
}
