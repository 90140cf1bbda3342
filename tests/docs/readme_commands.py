"""The commands of README.md as lists of words, and the same ones at a size that a test can afford."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vision_mtl.config.stage import STAGES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
NOT_RUN = ("test command", "installation", "needs a network", "needs a cluster")  # comments before a block of code
SERVES = ("explore",)  # runs until someone ends it, and has tests of its own
LEFT_OUT = ("max_seconds", "grid")  # of a config file
SMALL = {"steps": 2, "batch_size": 8, "num_evaluations": 1, "seeds": [0], "num_jobs": 1}
FEW = {"score.images": 8, "track.num_probes": 1, "track.num_pictures": 1}  # by option, in stages that have its section
OF_STAGE: dict[str, dict[str, Any]] = {
    "probe": {"probe.embedding_images": 30},
    "export": {"export.check_images": 10},
    "study": {"study.num_jobs": 1},
    "discover": {"pretexts.grid_mask.grid": 2, "pretexts.downsample.factor": 2},
}
FOLDS = {"discover.num_images": 8, "discover.select": "top", "discover.num_scorings": 1}  # 2 steps: nothing learnable
ONLINE = {"discover.online_updates": 2, "discover.online_images": 8}


@dataclass(frozen=True)
class Command:
    """The words after `train.py`, and the line of README.md that they stand in."""

    line: int
    words: list[str]

    @property
    def stage(self) -> str:
        """The stage that is named, or that the config file is for."""
        if "--stage" in self.words:
            return self.words[self.words.index("--stage") + 1]
        return read_yaml(self.value("--config"))["stage"]

    def value(self, option: str) -> str:
        """The word after `option`."""
        return self.words[self.words.index(option) + 1]


def commands(text: str) -> list[Command]:
    """Every `python train.py ...` and `torchrun ... train.py ...` in blocks and every `--stage ...` in backticks."""
    found, comment, fenced = [], "", False
    lines = text.replace("\\\n", " ").splitlines()
    for number, line in enumerate(lines, start=1):
        if line.startswith("```"):
            fenced, comment = not fenced, "" if fenced else comment
        elif fenced and not any(word in comment for word in NOT_RUN):
            if match := re.match(r"(?:python|torchrun .*) train\.py (.*)", line):
                found.append(Command(number, shlex.split(match[1], comments=True)))
        elif match := re.match(r"<!-- (.*) -->", line):
            comment = match[1]
        elif not fenced and line.strip():
            comment = ""
            spans = re.findall(r"`(?:python train\.py )?(--(?:stage|config) \S+ [^`]*--[^`]*|--stage [a-z_]+)`", line)
            found += [Command(number, shlex.split(span)) for span in spans]
    names = STAGES.names()
    return [c for c in found if c.stage not in SERVES and (c.stage in names or c.stage.islower())]


def at_smoke_size(command: Command, folder: Path) -> list[str]:
    """The command's words with few steps, small images and a small network; `folder` takes rewritten config files."""
    words = list(command.words)
    given = {word for word in words if word.startswith("--")}
    has = STAGES.get(command.stage).sections
    extra: dict[str, Any] = {"device": "cpu", "console": "plain"}
    if "--init_from" not in given:
        extra["image_size"] = 32
        extra |= {"backbone.name": "test_resnet"} if "backbone" in has else {}
    if "optim" in has:
        extra |= {"optim.steps": SMALL["steps"], "optim.batch_size": SMALL["batch_size"]}
    if "--config" in given:
        rewritten = folder / Path(command.value("--config")).name
        config = _small(read_yaml(command.value("--config")))
        config |= {"tasks": {"age": {"source": "csv/MY/ages.csv"}, "light": {"source": "folder/MY/MORE"}}}
        rewritten.write_text(yaml.safe_dump(config, sort_keys=False))
        words[words.index("--config") + 1] = str(rewritten)
    extra |= {option: value for option, value in FEW.items() if option.partition(".")[0] in has}
    extra |= OF_STAGE.get(command.stage, {})
    if command.stage == "discover":
        extra |= ONLINE if "--discover.online" in given else FOLDS
    for option, value in extra.items():
        if f"--{option}" not in given:
            words += [f"--{option}", str(value)]
    return words


def read_yaml(path: str) -> dict[str, Any]:
    """A config file that README.md names, from the repository's root."""
    return yaml.safe_load((ROOT / path).read_text("utf-8"))


def _small(value: Any) -> Any:
    """The same config with few steps, seeds and evaluations, and no grid of a study to search."""
    if not isinstance(value, dict):
        return value
    return {key: SMALL[key] if key in SMALL else _small(inner) for key, inner in value.items() if key not in LEFT_OUT}
