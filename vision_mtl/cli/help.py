"""What `--help` prints: the stages, and every option of one, with its unit and default, from the signatures."""

from __future__ import annotations

import shutil
import textwrap

from vision_mtl.config.options import REQUIRED, Option, class_summary, summary
from vision_mtl.config.resolve import (
    _DECODERS,
    _PRETEXTS,
    DEFAULT_DECODER,
    DEFAULT_PRETEXTS,
    HERE,
    SIMPLE_SECTIONS,
    option_table,
)
from vision_mtl.config.stage import STAGES, sections
from vision_mtl.core.errors import unknown

USAGE = "python train.py --stage STAGE [--config FILE.yaml] [--run_dir DIR] [--dotted.option value ...]"
COMMAND = {
    "--stage STAGE": "what to do, see above",
    "--config FILE": "YAML file with any of the options below, nested at the dots",
    "--run_dir DIR": "folder of the run (default: runs/STAGE-TIME); the same command in the same folder goes on. "
    "Stage explore writes none: there it names the run to look at, as --init_from does",
    "--console auto|plain|quiet|json": "how the run speaks: a progress bar on a terminal, plain lines, the result and "
    "errors alone, or a JSON object a line; the result goes to standard output, all else to standard error "
    "(default: auto)",
    "--print_config": "print the resolved config and end",
    "--help": "with --stage: that stage's options",
}


def stage_list() -> str:
    """The stages with their one-line summaries."""
    return "\n".join(_line(name, summary(STAGES.file(name)), _width()) for name in STAGES.names())


def help_text(stage: str | None) -> str:
    """Help for one stage; for the front door's (pretrain) if none is named. Raises `UserError` for an unknown one."""
    if stage is not None and stage not in STAGES.names():
        raise unknown("stage", stage, STAGES.names())
    shown = stage or "pretrain"
    width = _width()
    command = "\n".join(_entry(name, text, width) for name, text in COMMAND.items())
    told = textwrap.fill(f"stage {shown}: {summary(STAGES.file(shown))}", width)
    about = f"stages:\n{stage_list()}" if stage is None else told
    parts = [f"usage: {USAGE}", about, f"command:\n{command}"]
    table = option_table(shown, ["NAME"], list(DEFAULT_PRETEXTS), DEFAULT_DECODER)
    for section in dict.fromkeys((shown, "", *sections(shown))):  # what is the stage's own comes first
        options = [o for key, o in table.items() if (key.partition(".")[0] if "." in key else "") == section]
        if options:
            parts.append(f"{_title(section, shown)}:\n" + "\n".join(_option(option, width) for option in options))
    if "pretexts" in sections(shown):
        parts.append(_others("pretexts", "--pretexts.NAME.weight 1 adds one", _PRETEXTS))
    if "decoder" in sections(shown):
        parts.append(_others("decoders", "--decoder.name NAME chooses", _DECODERS))
    return "\n\n".join(parts)


def _title(section: str, stage: str) -> str:
    """What a group of options is about, from the docstring of the class that has them."""
    if section == stage:
        return f"options of stage {stage} itself" + (" and of its images" if stage in SIMPLE_SECTIONS else "")
    if section in SIMPLE_SECTIONS:
        file, name = SIMPLE_SECTIONS[section]
        return f"{section} options - {class_summary(HERE / file, name)}"
    return {
        "": "options of every stage",
        "tasks": "tasks options - One labelled set each, called NAME.",
        "pretexts": "pretexts options - The damages of the mixture, drawn by weight.",
        "decoder": "decoder options - From the backbone's maps to pictures.",
    }[section].removesuffix(".")


def _others(title: str, how: str, registry: object) -> str:
    lines = [_line(name, summary(registry.file(name)), _width()) for name in registry.names()]
    return f"{title} ({how}):\n" + "\n".join(lines)


def _width() -> int:
    return min(shutil.get_terminal_size((110, 24)).columns, 120)


def _line(name: str, text: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent=f"  {name:<13}", subsequent_indent=" " * 15)


def _option(option: Option, width: int) -> str:
    kind = option.annotation.replace("Literal", "").replace("'", "")
    default = "required" if option.default is REQUIRED else f"default: {_shown(option.default)}"
    return _entry(f"--{option.name} {kind}", f"{option.help} ({default})".strip(), width)


def _shown(value: object) -> str:
    if isinstance(value, str) and not value.strip():
        return repr(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _entry(name: str, text: str, width: int) -> str:
    body = textwrap.fill(text, width, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return f"  {name}\n{body}"
