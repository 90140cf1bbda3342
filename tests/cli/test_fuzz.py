"""Any command line, config or CSV file runs or gives one clear error, never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vision_mtl.cli.command import main
from vision_mtl.config.resolve import resolve
from vision_mtl.config.run_config import REPAIRS
from vision_mtl.config.schema import build_schema
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import build_pool

pytestmark = pytest.mark.slow  # hundreds of command lines

# per test; more: FUZZ_EXAMPLES=1000 pytest -n 0 tests/cli/test_fuzz.py --hypothesis-seed 1 (minutes)
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "120"))
DRAWN = "FUZZ_EXAMPLES" in os.environ  # drawn by that seed; else the same examples every time
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=not DRAWN, database=None
)
NAMES = sorted({name for stage in STAGES.names() for name in build_schema(stage, ["a"], REPAIRS, "stages")})
ODD = ["", "null", "true", "-1", "1e999", "nan", "[", "]", "{a: b", "{}", "[1, [2]]", "!!python/name:os.system", "'"]
ODD += [
    "&a [*a]",
    "../../etc/passwd",
    "~",
    "a b",
    "%s",
    "\0",
    "ä",
    '"',
    "--",
    "-",
    "0",
    "2",
    "0.5",
    "64,64",
    "finetune",
]

text = st.one_of(st.sampled_from(ODD), st.text(max_size=12), st.integers().map(str), st.floats().map(str))
scalar = st.one_of(text, st.none(), st.booleans(), st.integers(), st.floats())
value = st.recursive(scalar, lambda s: st.lists(s, max_size=3) | st.dictionaries(text, s, max_size=3), max_leaves=5)
option = st.one_of(st.sampled_from(NAMES), text, st.tuples(st.sampled_from(NAMES), text).map(".".join))
assigned = st.tuples(option, text).map("--{0[0]}={0[1]}".format)
words = st.lists(st.one_of(option.map("--{}".format), text, assigned), max_size=8)


@FUZZ
@given(stage=st.sampled_from(STAGES.names()), typed=words)
def test_a_command_line(stage: str, typed: list[str]) -> None:
    kept = [word for word in typed if not word.startswith(("--config", "--init_from", "--selection"))]
    assert main([*kept, "--stage", stage, "--print_config"]) in (0, 2)


@FUZZ
@given(stage=st.sampled_from(STAGES.names()), file=st.dictionaries(option, value, max_size=6))
def test_a_config_file(stage: str, file: dict[str, object]) -> None:
    """Names are flat or nested; an accepted config is read back from its YAML."""
    nested: dict[str, object] = {}
    for name, content in file.items():
        section, _, rest = name.partition(".")
        nested[section] = {**_mapping(nested.get(section)), rest: content} if rest else content
    nested.pop("init_from", None)
    try:
        found = resolve(stage, nested, {})
    except UserError:
        return
    assert resolve(stage, yaml.safe_load(found.to_yaml()), {}).to_yaml() == found.to_yaml()


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("csv")
    for number in range(4):
        Image.fromarray(np.full((6, 6, 3), 60 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


CELLS = ["0.png", "1.png", "2.png", "3.png", "gone.png", "a", "b", "1", "nan", "train", "test"]
cell = st.one_of(st.sampled_from(CELLS), text)
table = st.lists(st.lists(cell, min_size=1, max_size=4).map(",".join), max_size=7).map("\n".join)
with_header = table.map(lambda rows: ("file,x,y\n" + rows).encode())
# mostly valid files: most others are refused before an image is opened
short = st.sampled_from(["a", "b", "1", "2.5", "nan", "", "train", "val", "test"])
row = st.tuples(st.sampled_from(CELLS[:4]), short, short).map(",".join)
sound = st.lists(row, min_size=1, max_size=8).map(lambda rows: "\n".join(["file,x,y", *rows]).encode())
contents = st.one_of(sound, with_header, table.map(str.encode), st.binary(max_size=60))


@FUZZ
@given(
    content=contents,
    label=st.one_of(st.sampled_from(["x", "y", "file"]), text),
    kind=st.sampled_from(["single_label", "multi_label", "regression", "dense"]),
    split=st.one_of(st.none(), st.sampled_from(["x", "y"]), text),
)
def test_a_csv_file(place: Path, content: bytes, label: str, kind: str, split: str | None) -> None:
    (place / "labels.csv").write_bytes(content)
    try:
        task = Task(source=f"csv/{place}/labels.csv", label=label, kind=kind, split=split)
        pool = build_pool(Data(root=str(place / "root"), skip_unreadable=True), {"t": task}, image_size=(6, 6))
    except UserError:
        return
    assert len(pool) and len(pool.indices("train")) and pool.targets["t"].labelled.any()
