"""The resolved config of a run, its typed sections, and the base of a stage, which reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from vision_mtl.config.next_command import NextCommand
from vision_mtl.config.options import plain
from vision_mtl.core.run import Run
from vision_mtl.data.options import Data, Task
from vision_mtl.discovery.options import Score
from vision_mtl.models.decoder import DECODERS, DecoderOptions, decoder_options
from vision_mtl.models.options import BackboneOptions
from vision_mtl.pretext.contract import PRETEXTS, Pretext
from vision_mtl.study.roles import ArmRole
from vision_mtl.training.balancing.options import Balance
from vision_mtl.training.options import Optim, Runtime, Track

# section -> the class of its options; tasks and pretexts hold one object a name, the decoder depends on its name
SECTIONS: Mapping[str, type] = {
    "data": Data,
    "backbone": BackboneOptions,
    "optim": Optim,
    "balance": Balance,
    "runtime": Runtime,
    "track": Track,
    "score": Score,
}
NAMED_SECTIONS = ("tasks", "pretexts", "decoder")
DEFAULT_DECODER = "stages"
# pretexts by name, with the options that differ from their defaults
REPAIRS: dict[str, dict[str, Any]] = {"grid_mask": {}, "decolorise": {}, "downsample": {}}
Hint = tuple[str, str]  # a file or a command, and its purpose


def read_section(name: str, values: Mapping[str, Any]) -> Any:
    """Return a section from its plain values, the form in YAML and checkpoints; the inverse of `RunConfig.section`.

    Raises `UserError` for an unknown pretext or decoder, and for values out of range.
    """
    if name == "tasks":
        return {task: Task(**options) for task, options in values.items()}
    if name == "pretexts":
        return {pretext: PRETEXTS.get(pretext)(**options) for pretext, options in values.items()}
    if name == "decoder":
        return decoder_options({"name": DEFAULT_DECODER, **values})
    return SECTIONS[name](**values)


@dataclass(frozen=True, kw_only=True)
class General:
    """Options of every stage."""

    seed: int = 0
    """Seed of initial weights, batches and damage; splits have a separate one, data.split_seed."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device that computes; auto: cuda if there is one, else mps, else cpu."""
    image_size: int | str | list[int] = 64
    """Height and width of images in pixels: N for both, or H,W."""
    init_from: str | None = None
    """Run folder or checkpoint from which a new run inherits weights, backbone and image size."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Base of every stage: a frozen dataclass in `stages/NAME.py`.

    Its fields are its own options, its class variables declare what it reads, inherits and writes, and `run` is the
    recipe. Heavy packages are imported inside `run`, so that `--help` is fast.
    """

    registered_name: ClassVar[str]
    sections: ClassVar[tuple[str, ...]] = ()
    """Sections of the config that the stage reads."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Dotted option -> default that replaces the component's."""
    default_pretexts: ClassVar[Mapping[str, Mapping[str, Any]]] = REPAIRS
    """The mixture of a run that names no pretext."""
    inherits_images: ClassVar[bool] = False
    """With `--init_from`, use the images and tasks of that run unless others are given."""
    uses_unlabelled: ClassVar[bool] = True
    """Unlabelled images of the default or of the run to start from are used."""
    adds_tasks: ClassVar[bool] = False
    """Given tasks are added to those of the run that this one starts from."""
    mixes_pretexts_with_tasks: ClassVar[bool] = False
    """Damaged and labelled images share a batch, so all must have one size."""
    writes_run: ClassVar[bool] = True
    """False: `--run_dir` names an existing run, and no folder is made."""
    changeable: ClassVar[tuple[str, ...]] = ("runtime.shard",)
    """Options that change no result, so a resumed run may be given other values."""
    arm: ClassVar[ArmRole | None] = None
    """The stage's role in an arm of a study; None: it cannot be in one."""
    results: ClassVar[Sequence[Hint]] = ()
    """The most useful files of a finished run; those that exist are listed at its end."""
    next_commands: ClassVar[Sequence[NextCommand]] = ()
    """Commands to suggest at the end of a run."""

    def run(self, config: RunConfig, run: Run) -> None:
        """Run the stage in the run's folder and write its result. Raises `UserError` for what the user can fix."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All options of a run, with defaults filled in. Sections that the stage does not read hold their defaults."""

    stage: str
    seed: int
    device: str
    image_size: tuple[int, int]
    init_from: str | None
    options: Stage  # the stage's own options
    data: Data = field(default_factory=Data)
    tasks: Mapping[str, Task] = field(default_factory=dict)
    pretexts: Mapping[str, Pretext] = field(default_factory=dict)
    backbone: BackboneOptions = field(default_factory=BackboneOptions)
    decoder: DecoderOptions = field(default_factory=lambda: DECODERS.get(DEFAULT_DECODER)())
    optim: Optim = field(default_factory=Optim)
    balance: Balance = field(default_factory=Balance)
    runtime: Runtime = field(default_factory=Runtime)
    track: Track = field(default_factory=Track)
    score: Score = field(default_factory=Score)
    notes: tuple[str, ...] = ()  # warnings about the file, for the run's log
    start: Path | None = None  # the checkpoint of init_from, found and checked when the config was resolved

    def section(self, name: str) -> dict[str, Any]:
        """Return a section as plain values, the form in YAML and checkpoints."""
        value = getattr(self, name)
        if isinstance(value, Mapping):
            return {key: plain(asdict(item)) for key, item in value.items()}
        return ({"name": value.registered_name} if name == "decoder" else {}) | plain(asdict(value))

    def to_dict(self) -> dict[str, Any]:
        """Return what `config.yaml` holds: the general options, the sections that the stage reads, its own options."""
        found: dict[str, Any] = {
            name: plain(getattr(self, name)) for name in ("stage", *(f.name for f in fields(General)))
        }
        names = [f.name for f in fields(self) if f.name in self.options.sections]
        found |= {name: self.section(name) for name in names}
        if own := plain(asdict(self.options)):
            found[self.stage] = found.get(self.stage, {}) | own
        return found

    def to_yaml(self, ascii_only: bool = False) -> str:
        """Return the text of `config.yaml` and of `--print_config`; `--config` reads it back to an equal config."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=not ascii_only)
        return self.to_yaml(ascii_only=True) if "\x85" in text else text  # PyYAML writes U+0085 as a line break
