"""Write options as words of a command line, the inverse of `from_words`, so that another stage sees the same images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

from vision_mtl.config.resolve import flatten, names_in, resolve
from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError

CARRIED = ("data", "tasks", "backbone", "decoder")  # sections that make another stage see the same images and network
FROM_WEIGHTS = ("backbone", "decoder")  # sections that --init_from hands on

Given = dict[str, list[str]]  # dotted name -> the words after it


def words_like(config: RunConfig, stage: str, given: Given) -> Given:
    """Return `given` and the words with which `stage` has the images, image size and network of `config`.

    Options that the stage has anyway, by its defaults or by --init_from, are left out. Raises `UserError` if the stage
    does not accept the result.
    """
    wanted = _carried(config, stage, "init_from" in given)
    words = dict(given)
    # names first: they decide which other options exist
    base = _values(resolve(stage, {}, words))
    if names_in("tasks", wanted) != names_in("tasks", base) or _differ(wanted, base, "data.unlabelled"):
        unlabelled = wanted.get("data.unlabelled")
        words |= {"data.unlabelled": as_words(unlabelled)} if unlabelled else {}
        words |= {f"tasks.{n}.source": [wanted[f"tasks.{n}.source"]] for n in names_in("tasks", wanted)}
    if _differ(wanted, base, "decoder.name"):
        words["decoder.name"] = [wanted["decoder.name"]]
    base = _values(resolve(stage, {}, words))
    words |= {key: as_words(wanted[key]) for key in wanted if key not in words and _differ(wanted, base, key)}
    return words | _without_unsuitable(resolve(stage, {}, words))


def as_words(value: Any) -> list[str]:
    """Return a plain value as the words after an option: text lists word by word, other lists and mappings as YAML.

    >>> as_words(["images/my photos", "b"]), as_words([0, 1.5]), as_words(None), as_words(True)
    (['images/my photos', 'b'], ['[0, 1.5]'], ['null'], ['true'])
    """
    if isinstance(value, list) and value and all(_is_plain_word(item) for item in value):
        return value
    if isinstance(value, list | dict):
        return [yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf).strip()]
    if value is None:
        return ["null"]
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def with_name(name: str, words: list[str]) -> list[str]:
    """Return an option's name and its words; a word that looks like an option is joined to the name.

    >>> with_name("seed", ["3"]), with_name("tasks.a.label_from", ["--(.)"])
    (['--seed', '3'], ['--tasks.a.label_from=--(.)'])
    """
    return [f"--{name}={words[0]}"] if len(words) == 1 and words[0].startswith("--") else [f"--{name}", *words]


def _is_plain_word(item: Any) -> bool:
    return isinstance(item, str) and not item.startswith(("[", "{", "--"))


def _carried(config: RunConfig, stage: str, has_weights: bool) -> dict[str, Any]:
    """Return the options of `config` that `stage` reads and that --init_from does not hand on, by dotted name."""
    kind = STAGES.get(stage)
    names = [name for name in CARRIED if name in kind.sections and name in config.options.sections]
    names = [name for name in names if not (has_weights and name in FROM_WEIGHTS)]
    values = _values(config)
    found = {key: value for key, value in values.items() if key.split(".")[0] in names}
    if names and not has_weights:
        found["image_size"] = values["image_size"]
    if "data.channels" in found:  # stage data has no backbone
        found["backbone.in_chans"] = found["data.channels"]
    if not kind.uses_unlabelled:
        found.pop("data.unlabelled", None)
    return found


def _without_unsuitable(found: RunConfig) -> Given:
    """Return the words that leave out the pretexts of a config that refuse its images (decolorise without colours)."""
    words = {}
    for name, pretext in found.pretexts.items():
        try:
            pretext.check((found.backbone.in_chans, *found.image_size))
        except UserError:
            words[f"pretexts.{name}.weight"] = ["0"]
    return words


def _differ(wanted: Mapping[str, Any], base: Mapping[str, Any], key: str) -> bool:
    """Return True if the stage has the option `key`, with another value."""
    return key in wanted and key in base and wanted[key] != base[key]


def _values(config: RunConfig) -> dict[str, Any]:
    """Return all options of a config by dotted name, as plain values."""
    values = flatten(config.stage, config.to_dict())
    if "data.unlabelled" in values:
        values["data.unlabelled"] = values["data.unlabelled"] or []
    return values | {"image_size": ",".join(str(side) for side in config.image_size)}
