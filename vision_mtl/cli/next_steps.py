"""Where to look when a stage has ended, and which command answers the next question."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FEATURES = (
    ("--stage probe --init_from {run}{tasks}", "how good are its features?"),
    ("--stage finetune --init_from {run}{tasks}", "train the tasks from it"),
    ("--stage reconstruct --init_from {run}", "more pictures of repairs"),
)
ANSWERS = (
    ("--stage predict --init_from {run} --predict.images PATH", "what is in these pictures?"),
    ("--stage export --init_from {run}", "take it away: timm, ONNX, torch.export"),
)
LOOK = {  # stage -> what it leaves in its folder; those that are there are named
    "pretrain": (
        ("figures/repairs.png", "test images, damaged and repaired"),
        ("figures/curves.png", "losses over the run"),
        ("figures/skill.png", "skill by source"),
    ),
    "probe": (
        ("figures/scores_accuracy.png", "every method beside the others"),
        ("tables", "each class of each task"),
        ("test_instances.parquet", "every answer to every test image"),
    ),
    "discover": (
        ("figures", "maps of skill, and what is repaired best and worst"),
        ("selection.parquet", "what is worth learning"),
    ),
    "study": (("report.html", "the report, with figures"), ("report.md", "the same as text")),
    "reconstruct": (("figures", "a picture of each pretext"),),
    "predict": (
        ("predictions.csv", "a row an image"),
        ("predictions.json", "the same with all probabilities"),
        ("figures/predictions.png", "a contact sheet"),
    ),
    "export": (
        ("MODEL_CARD.md", "what it is, and how each file is loaded"),
        ("backbone", "for timm"),
        ("model.onnx", "for onnxruntime"),
        ("model.pt2", "for PyTorch alone"),
    ),
    "data": (("figures", "a contact sheet of each source"),),
}
TRAINED_TASKS = (("figures/curves.png", "losses over the run"), ("figures", "all pictures"), ("tables", "each class"))
NEXT = {
    "pretrain": FEATURES,
    "probe": ANSWERS,
    "finetune": ANSWERS,
    "joint": ANSWERS,
    "add_task": ANSWERS,
    "discover": (
        ("--stage pretrain --selection {run}/selection.parquet --data.unlabelled {sources}", "learn what is worth it"),
    ),
    "export": (),
}

Step = tuple[str, str]  # a path or a command, and what it is for


def where_to_look(stage: str, folder: Path) -> list[Step]:
    """The files of `folder` that a person wants first, with what they show."""
    return [(str(folder / name), what) for name, what in LOOK.get(stage, TRAINED_TASKS) if (folder / name).exists()]


def what_next(stage: str, folder: Path, data: Mapping[str, Any]) -> list[Step]:
    """Whole commands that go on from the run in `folder`, whose result says `data` of its images and tasks."""
    known = {
        "run": shlex.quote(str(folder)),
        "sources": " ".join(shlex.quote(source) for source in data.get("sources", [])),
        "tasks": "" if data.get("tasks") else " --tasks.NAME.source folder/PATH",
    }
    return [(f"python train.py {words.format(**known)}", what) for words, what in NEXT.get(stage, ())]


def steps_text(stage: str, folder: Path, data: Mapping[str, Any]) -> str:
    """Both as lines for people; commands stand on lines of their own, to be copied."""
    look, then = where_to_look(stage, folder), what_next(stage, folder, data)
    width = max((len(path) for path, _ in look), default=0)
    lines = [f"results: {folder}"] + [f"  {path:<{width}}  {what}" for path, what in look]
    if then:
        lines += ["next:"] + [line for command, what in then for line in (f"  # {what}", f"  {command}")]
    return "\n".join(lines)
