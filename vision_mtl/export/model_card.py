"""MODEL_CARD.md: the data, recipe, scores and limits of an exported model, and how to load each file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from vision_mtl import __version__
from vision_mtl.core.run import CONFIG, RESULT
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.discovery.kinds import learned_text
from vision_mtl.export.backbone import TransformDifference
from vision_mtl.export.from_files import FileCheck
from vision_mtl.export.loading import loading_code
from vision_mtl.models.weights import weights_text

Row = tuple[str, str, str, str, str, str, str]  # what, metric, score, interval, n, majority, chance
PATH_SOURCES = ("folder", "csv", "images", "wds")  # followed by a path of the machine that trained

TEMPLATE = """\
# {{ title | name }}

A `{{ architecture }}` backbone{% if tasks %} with heads for {{ tasks | length }} \
task{{ "s" if tasks | length > 1 }}{% else %} without task heads: it gives features{% endif %}, \
exported by vision_mtl {{ version }}.
Images are {{ channels }}-channel, {{ size[0] }} x {{ size[1] }} pixels (height x width), in [0, 1]; \
they were resized by `{{ fit }}`.

## Data

{% for source, counts in sources.items() -%}
- {{ source | name }}{% if counts %}: {{ counts }}{% endif %}
{% endfor %}
The licences of these images, and of published weights if training started from some, are not known to the program
that wrote this card: check them before you share the model. Sources called *rendered* are drawings.

These weights were trained on the training images of: {{ trained_on | map("name") | join(", ") }}.
{% for line in earlier -%}
They started from {{ line | name }}.
{% endfor %}
## Recipe

{% for key, value in recipe.items() -%}
- {{ key }}: {{ value | name }}
{% endfor %}
## Scores

{% if scores -%}
On images held out from training, with 95 % intervals:

| what | metric | score | interval | n | majority | chance |
|---|---|---|---|---|---|---|
{% for row in scores -%}
| {{ row[0] | name }} | {{ row[1] | name }} | {{ row[2] }} | {{ row[3] }} | {{ row[4] }} | {{ row[5] }} | {{ row[6] }} |
{% endfor %}
Majority: always the class that most training labels have (numbers: their median). Chance: the same predictions,
shuffled over the images.
{{ "" }}
{%- else -%}
None are known: the model was exported from a checkpoint without a run, or from a run without a result.
{% endif %}
{%- if tasks %}
## Tasks and classes

| task | kind | prediction | classes |
|---|---|---|---|
{% for task, about in tasks.items() -%}
| {{ task | name }} | {{ about.kind }} | {{ forms[about.kind] }} | {{ about.class_names | map("name") | join(", ") }} |
{% endfor %}
{%- endif %}
## Limits

- The scores hold for images like the held-out ones; they may be worse for other cameras, places or drawings.
- Every image gets a prediction, even if it shows none of the classes.
- Probabilities were calibrated on validation images if there were enough; on other images they may be overconfident.
- Details smaller than a pixel at {{ size[0] }} x {{ size[1] }} are lost before the model sees them.

## Loading

Load an image, with Pillow, NumPy and OpenCV. The function is in `load_image.py` of the same folder:

```python
{{ loading }}

images = load_image(open("photo.png", "rb").read())  # (N, C, H, W); several are joined by np.concatenate
```

{{ checked }}

`backbone/`, with timm; unlike the other files it takes normalised images\
{% if enlarged %}, enlarged to {{ enlarged[0] }} x {{ enlarged[1] }} pixels{% endif %}:

```python
import timm
import torch

backbone = timm.create_model("local-dir:backbone", pretrained=True).eval()
mean, std = (torch.tensor(backbone.pretrained_cfg[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
{% if enlarged -%}
enlarged = torch.nn.functional.interpolate(torch.from_numpy(images), size={{ enlarged }}, mode="bilinear")
features = backbone((enlarged - mean) / std)  # (N, D)
{%- else -%}
features = backbone((torch.from_numpy(images) - mean) / std)  # (N, D)
{%- endif %}
```
{% if by_transform %}
{{ by_transform }}
{% endif -%}
{% if has_onnx %}
`model.onnx`, with onnxruntime:

```python
import json
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
about = json.loads(session.get_modelmeta().custom_metadata_map["vision_mtl"])
names = [output.name for output in session.get_outputs()]
answers = dict(zip(names, session.run(names, {"images": images})))
```
{% endif -%}
{% if has_program %}
`model.pt2`, with PyTorch:

```python
import json
import torch

extra = {"vision_mtl.json": ""}
program = torch.export.load("model.pt2", extra_files=extra).module()
about = json.loads(extra["vision_mtl.json"])
answers = program(torch.from_numpy(images))
```
{% endif %}"""


@dataclass(frozen=True)
class Origin:
    """The run of a model: its config and result, both {} for a checkpoint without a run."""

    name: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]


def read_origin(where: Path) -> Origin:
    """Return the config and result of the run folder `where`, which may also be its folder of checkpoints."""
    folder = where.parent if where.name == "checkpoints" else where
    config = yaml.safe_load((folder / CONFIG).read_text("utf-8")) if (folder / CONFIG).is_file() else {}
    result = json.loads((folder / RESULT).read_text("utf-8")) if (folder / RESULT).is_file() else {}
    return Origin(folder.resolve().name, config, result)


def card_text(
    origin: Origin,
    state: Mapping[str, Any],
    about: Mapping[str, Any],
    files: Sequence[str],
    check: FileCheck,
    transform: TransformDifference | None,
) -> str:
    """Return the card as Markdown.

    `about` is the metadata of the exported files, `files` are their names; `check` and `transform` are the differences
    that were measured on the run's images.
    """
    height, width = about["image_size"]
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters["name"] = escape
    return environment.from_string(TEMPLATE).render(
        title=origin.name,
        version=__version__,
        **{key: about[key] for key in ("architecture", "channels", "fit", "tasks")},
        size=(height, width),
        enlarged=None if about["input_size"] == about["image_size"] else about["input_size"],
        loading=loading_code(about),
        checked=_checked(check, [name for name in ("model.onnx", "model.pt2") if name in files]),
        by_transform="" if transform is None else _by_transform(transform, about["input_size"] != about["image_size"]),
        sources=_sources(origin, state),
        recipe=_recipe(origin, state),
        trained_on=_trained_on(state),
        earlier=_earlier(origin) or (["random weights"] if origin.config and not state.get("weights") else []),
        scores=[*_task_scores(origin.result, list(about["tasks"])), *_skill_scores(origin.result)],
        forms={name: label_kind(name).form for name in {task["kind"] for task in about["tasks"].values()}},
        has_onnx="model.onnx" in files,
        has_program="model.pt2" in files,
    )


def _checked(check: FileCheck, files: Sequence[str]) -> str:
    """Return the figures of the check from image files as a sentence."""
    if not check.images:
        return "This was not checked on image files: the run's images were not available when it was exported."
    labels = f"{check.labels_differing} labels differ, " if check.labels_differing is not None else ""
    by = ", ".join(f"`{name}`" for name in ("load_image.py", *files))
    found = (
        f"Checked on {check.images} image files of the run, by {by} against vision_mtl's own predictions: {labels}the "
        f"largest difference of {check.what} is {check.largest_difference:.1g}."
    )
    failed = len(check.failed)
    return found + (f" {failed} of these files give another prediction, or none." if failed else "")


def _by_transform(transform: TransformDifference, enlarged: bool) -> str:
    how = (
        "resizes files to the enlarged size at once, with detail that this model has not seen"
        if enlarged
        else "uses other filters and borders"
    )
    return (
        "timm's own transform, `timm.data.create_transform(**timm.data.resolve_model_data_config(backbone))`, "
        f"{how}: on {transform.images} images of the run, features differ by "
        f"{transform.median:.1%} of their length (median), at most {transform.largest:.1%}."
    )


def escape(text: object) -> str:
    """Return text for Markdown on one line, with special characters escaped.

    >>> print(escape("a_b\\nc"))
    a\\_b c
    """
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", " ".join(str(text).split()))


def public_source(source: str) -> str:
    """Return a source without its parent folders, which are private."""
    kind, _, rest = source.partition("/")
    return f"{kind}/{PurePath(rest).name}" if kind in PATH_SOURCES else source


def _sources(origin: Origin, state: Mapping[str, Any]) -> dict[str, str]:
    """Return the sources with their numbers of images, "" if unknown."""
    counted = origin.result.get("data", {}).get("sources", {})
    named = [*(task["source"] for task in state["tasks"].values()), *(state["data"]["unlabelled"] or [])]
    return {
        public_source(source): ", ".join(f"{count:,} {split}" for split, count in counted.get(source, {}).items())
        for source in dict.fromkeys([*counted, *named])
    }


def _recipe(origin: Origin, state: Mapping[str, Any]) -> dict[str, str]:
    result, optim = origin.result, origin.config.get("optim", {})
    found = {"stage": origin.config.get("stage"), "step of these weights": state.get("step")}
    found |= {"started from": PurePath(start).name} if (start := origin.config.get("init_from")) else {}
    if state.get("weights"):
        found["backbone started from"] = weights_text(state["weights"])
    if state["pretexts"]:
        found["pretexts"] = ", ".join(state["pretexts"])
    if teacher := state.get("teacher"):  # of this run, or of one that it started from
        found["features predicted"] = f"those of {PurePath(teacher['name']).name}"
        found["the teacher was trained on"] = teacher["trained_on"]
    found |= {key.replace("_", " "): optim.get(key) for key in ("batch_size", "learning_rate", "weight_decay")}
    if result.get("images_seen"):
        found["images seen"] = f"{result['images_seen']:,} in {result['seconds']:.0f} s of training"
    found["seed"] = origin.config.get("seed")
    return {key: str(value) for key, value in found.items() if value is not None}


def _trained_on(state: Mapping[str, Any]) -> list[str]:
    """Return the tasks with their sources, and the unlabelled sources, of the run that trained last."""
    tasks = [f"{name} ({public_source(task['source'])})" for name, task in state["tasks"].items()]
    return [*tasks, *map(public_source, state["data"]["unlabelled"] or [])] or ["unknown sources"]


def _earlier(origin: Origin) -> list[str]:
    """Return what the run started from, and what that run started from, each with its images as far as it is here."""
    found: list[str] = []
    known = {origin.name}
    while start := origin.config.get("init_from"):
        origin = read_origin(Path(start).expanduser())
        if origin.name in known:
            break
        known.add(origin.name)
        sources = origin.result.get("data", {}).get("sources", {})
        images = ", ".join(map(public_source, sources)) or "images that are not known here"
        found.append(f"run {origin.name} ({origin.config.get('stage', 'stage unknown')}), trained on {images}")
    return found


def _task_scores(result: Mapping[str, Any], tasks: Sequence[str]) -> list[Row]:
    """Return a row for each of the model's tasks: its score on test images, or that it is not known."""
    metrics = result.get("metrics", {})
    known = {**metrics.get("tasks", {}), **metrics.get("old_tasks", {})}
    return [_task_row(task, known.get(task, {})) for task in tasks] if known else []


def _task_row(task: str, found: Mapping[str, Any]) -> Row:
    scores = found.get("head", found)  # a probe keeps one head
    metric = label_kind(found["kind"]).headline if "kind" in found else ""
    if metric not in scores:
        return (task, metric, "not scored", "", "", "", "")
    baselines = [found.get(name, {}).get(metric) for name in ("majority", "chance")]
    shown = ["" if score is None else _value(score["value"]) for score in baselines]
    name, metric, value, interval, n, *_ = _row(task, metric, scores[metric])
    return name, metric, value, interval, n, shown[0], shown[1]


def _skill_scores(result: Mapping[str, Any]) -> list[Row]:
    """Return rows of what training added to repairs: 0 is the best rule without learning, 1 is perfect.

    A run from before `skill_learned` has the skill against the classic repair.
    """
    metrics = result.get("metrics", {})
    if "skill_learned" not in metrics:
        older = metrics.get("skill", {})
        return [_row(name, "skill against the classic repair", score) for name, score in older.items()]
    scores = metrics["skill_learned"].items()
    return [_row(name, f"skill_learned ({learned_text(score)})", score) for name, score in scores]


def _row(name: str, metric: str, score: Mapping[str, Any]) -> Row:
    interval = "" if score["low"] is None else f"{score['low']:.3f} to {score['high']:.3f}"
    return name, metric, _value(score["value"]), interval, f"{score['n']:,}", "", ""


def _value(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"  # for example an average over no class
