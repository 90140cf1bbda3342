"""The text of `--help`: the stages, and every option of one with its type, unit and default."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import replace
from typing import Any

from vision_mtl.core.registry import Registry

USAGE = "python train.py --stage STAGE [--config FILE.yaml] [--run_dir DIR] [--dotted.option value ...]"
COMMAND = {
    "--stage STAGE": "the stage to run, one of those above",
    "--config FILE": "YAML file with any of the options, nested at the dots; sections that the stage does not read are "
    "ignored, so one file serves a whole project",
    "--run_dir DIR": "folder of the run (default: runs/STAGE-TIME); the same command in the same folder resumes it. "
    "Stage explore writes none: there it names the run to show, as --init_from does",
    "--plugins FILE ...": "Python files that register components (pretexts, decoders, sources, ...) by name",
    "--console auto|plain|quiet|json": "auto: a progress bar on a terminal; plain: lines of text; quiet: only the "
    "result and errors; json: one JSON object per line. The result goes to standard output, everything else to "
    "standard error (default: auto)",
    "--print_config": "print the resolved config and exit",
    "--version": "print the version and exit",
    "--help": "print this page; with --stage, the options of that stage",
}
NAMED = {
    "": "options of every stage",
    "tasks": "tasks options - Labelled sets, each under a NAME",
    "pretexts": "pretexts options - The pretexts that are mixed, in proportion to their weights",
    "decoder": "decoder options - Turns the backbone's maps into pictures",
}


def stage_list() -> str:
    """Return the stages with their one-line summaries, read without importing them."""
    stages: Registry[object] = Registry("stage", "vision_mtl.stages")
    return "\n".join(_line(name, stages.summary(name), _width()) for name in stages.names())


def help_text(stage: str | None) -> str:
    """Return the help of the program, or of one stage; raises `UserError` for an unknown stage."""
    width = _width()
    command = "command:\n" + "\n".join(_entry(name, text, width) for name, text in COMMAND.items())
    if stage is None:
        more = "--stage STAGE --help lists the options of a stage."
        return "\n\n".join([f"usage: {USAGE}", f"stages:\n{stage_list()}", command, more])
    return "\n\n".join([f"usage: {USAGE}", *_stage_parts(stage, command, width)])


def _stage_parts(stage: str, command: str, width: int) -> list[str]:
    from vision_mtl.config.resolve import named_values  # late: they import PyTorch
    from vision_mtl.config.run_config import DEFAULT_DECODER
    from vision_mtl.config.schema import build_schema
    from vision_mtl.config.stage import STAGES
    from vision_mtl.models.decoder import DECODERS
    from vision_mtl.pretext.contract import PRETEXTS

    kind = STAGES.get(stage)
    sections, mixture = kind.sections, kind.default_pretexts
    schema = build_schema(stage, ["NAME"], mixture, DEFAULT_DECODER)
    schema |= {key: replace(schema[key], default=value) for key, value in named_values("pretexts", mixture).items()}
    parts = [textwrap.fill(f"stage {stage}: {STAGES.summary(stage)}", width), command]
    for section in dict.fromkeys((stage, "", *sections)):  # the stage's own options first
        options = [o for key, o in schema.items() if (key.partition(".")[0] if "." in key else "") == section]
        if options:
            entries = (_entry(f"--{o.name} {o.type_text}", f"{o.help} ({_default(o.default)})", width) for o in options)
            parts.append(f"{_title(section, stage)}:\n" + "\n".join(entries))
    if "pretexts" in sections:
        parts.append(_registered("pretexts (--pretexts.NAME.weight 1 adds one)", PRETEXTS, width))
    if "decoder" in sections:
        parts.append(_registered("decoders (--decoder.name NAME chooses one)", DECODERS, width))
    return parts


def _title(section: str, stage: str) -> str:
    """Return the title of a group of options: the summary of their class."""
    from vision_mtl.config.options import summary
    from vision_mtl.config.run_config import SECTIONS

    if section == stage:
        return f"options of stage {stage} itself" + (" and of its images" if stage in SECTIONS else "")
    return f"{section} options - {summary(SECTIONS[section])}" if section in SECTIONS else NAMED[section]


def _registered(title: str, registry: Registry[Any], width: int) -> str:
    return f"{title}:\n" + "\n".join(_line(name, registry.summary(name), width) for name in registry.names())


def _default(value: object) -> str:
    from vision_mtl.config.options import REQUIRED

    if value is REQUIRED:
        return "required"
    if isinstance(value, str) and not value.strip():
        return f"default: {value!r}"
    plain = list(value) if isinstance(value, tuple) else value
    return f"default: {'null' if plain is None else str(plain).lower() if isinstance(plain, bool) else plain}"


def _width() -> int:
    return min(shutil.get_terminal_size((110, 24)).columns, 120)


def _line(name: str, text: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent=f"  {name:<13}", subsequent_indent=" " * 15)


def _entry(name: str, text: str, width: int) -> str:
    body = textwrap.fill(text.strip(), width, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return f"  {name}\n{body}"
