"""Does a run that is killed again and again end as if nothing had happened?

Small runs of `pretrain`, `finetune` and `joint` on the CPU are killed (SIGKILL) at random moments, in the middle of a
step, of a line of metrics.jsonl, of a file's bytes, before and after its renaming, and started again with the same
command until they end. Weights, averaged weights, the optimiser's and the balancing's memory, the best weights, every
line of metrics.jsonl but its clock, and the metrics of result.json must equal, bit for bit, those of a run that nobody
killed. `late` counts kills past half of the steps.

    python benchmarks/faults.py --kills 500

With `--full`, the runs stand on a small disk (tmpfs: only root may mount one) that something else fills up to a random
rest, then to a larger one, and so on until they end: every time one clear error (exit code 2), never a lost checkpoint.

Lives are forked from one process that has imported everything that a life imports, and computed nothing. Those that are
killed draw no pictures, which are made of what is compared.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

import numpy as np
import torch  # noqa: F401 warm: a life must not spend its first seconds on it
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.record import write
from vision_mtl.cli.command import main
from vision_mtl.config.stage import STAGES
from vision_mtl.core.run import Run
from vision_mtl.training.checkpoint import checkpoints, read_state, read_tensors
from vision_mtl.training.step_guard import StepGuard

STEPS = 12
CLOCK = ("seconds", "images_per_second")
PARTS = ("model", "average", "optimiser", "balancing")
OPTIONS = {
    "pretrain": ["--optim.ema_decay", "0.9", "--track.num_probes", "3"],
    "finetune": ["--balance.name", "dwa", "--balance.kwargs.window", "3", "--balance.conflicts_every_steps", "4"],
    "joint": ["--balance.name", "uncertainty", "--optim.ema_decay", "0.5", "--joint.drop_path_ratio", "0.1"],
}


Act = Callable[..., None]


def nothing(*_: object, **__: object) -> None: ...


def die() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(place: str, count: int) -> None:
    """Have this process die at the `count`-th time that it passes `place`."""
    left = iter(range(count - 1, -1, -1))

    def now() -> bool:
        return next(left, None) == 0

    def around(owner: Any, name: str, before: Act = nothing, after: Act = nothing) -> None:
        original = getattr(owner, name)

        def wrapped(*given: Any, **options: Any) -> Any:
            last = now()
            if last:
                before(*given)
            result = original(*given, **options)
            if last:
                after(*given)
            return result

        setattr(owner, name, wrapped)

    def half_a_file(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".tmp"):  # not what is only made durable: it is whole
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
        die()

    def half_a_line(run: Run, record: dict[str, Any]) -> None:
        with (run.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record)[:20])
        die()

    {
        "step": lambda: around(StepGuard, "_read", lambda *_: die()),
        "line": lambda: around(Run, "log", half_a_line),
        "bytes": lambda: around(os, "fsync", half_a_file),
        "flushed": lambda: around(os, "fsync", after=lambda *_: die()),
        "rename": lambda: around(os, "replace", lambda *_: die()),
        "renamed": lambda: around(os, "replace", after=lambda *_: die()),
    }[place]()


SPARED = 0.1  # share of lives that nobody takes
PLACES = {"step": STEPS, "line": 6, "bytes": 24, "flushed": 24, "rename": 12, "renamed": 12}  # at most so often


def live(
    words: list[str], death: tuple[str, int] | None, draws: bool = True, modules: Path | None = None
) -> int | None:
    """Run the command in a process of its own; its exit code, or None if it was killed.

    What a life imports is written to `modules` and imported here, so that those after it need not.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if death is not None:
                arm(*death)
            if not draws:
                Figure.savefig = nothing
            code = main(words)
            if modules is not None:
                modules.write_text("\n".join(sys.modules))
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    status = os.waitpid(child, 0)[1]
    if modules is not None and modules.exists():
        for name in modules.read_text().splitlines():
            with suppress(Exception):  # some can only be imported by another
                importlib.import_module(name)
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def write_images(folder: Path) -> None:
    """48 pictures with two labels, some of them blank."""
    rows, random_pixels = ["file,letter,size"], np.random.default_rng(0)
    for number in range(48):
        pixels = random_pixels.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        rows.append(f"{number:02d}.png,{'abc'[number % 3] if number < 40 else ''},{number % 7 if number > 9 else ''}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def command(stage: str, root: Path, run: Path, checkpoint_seconds: float) -> list[str]:
    """The words of a run; the time between checkpoints may differ between runs that must end alike."""
    table = f"csv/{root}/images/labels.csv"
    options = {"stage": stage, "run_dir": run, "data.root": root / "data", "device": "cpu", "runtime.precision": "fp32"}
    options |= {"optim.steps": STEPS, "optim.batch_size": 6, "image_size": 32, "backbone.name": "test_resnet"}
    options |= {"runtime.num_threads": 1, "data.num_workers": 2, "track.tensorboard": "false", "data.val_ratio": 0.25}
    options |= {"track.log_every_steps": 5, "track.num_pictures": 0, "optim.learning_rate": 0.05}
    options |= {"tasks.letter.source": table, "tasks.letter.label": "letter"}
    options |= {"tasks.size.source": table, "tasks.size.label": "size", "tasks.size.kind": "regression"}
    options |= {"track.checkpoint_every_seconds": checkpoint_seconds}
    return [str(word) for key, value in options.items() for word in (f"--{key}", value)] + OPTIONS[stage]


def outcome(run: Path) -> dict[str, Any]:
    """All that must be equal: tensors as bytes, lines without their clock, metrics."""
    last = checkpoints(run / "checkpoints")[-1]
    found: dict[str, Any] = {"checkpoint": last.name}
    for path in (last, *sorted((run / "checkpoints").glob("best*.safetensors"))):
        for part in PARTS:
            found |= {f"{path.name} {part}.{k}": v.numpy().tobytes() for k, v in read_tensors(path, part).items()}
    found["best"] = read_state(last).get("best")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["kind"] != "resume"]
    found["lines"] = [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]
    found["metrics"] = json.loads((run / "result.json").read_text())["metrics"]
    return found


def try_stage(stage: str, root: Path, kills: int, dice: random.Random) -> Iterator[dict[str, Any]]:
    """Kill runs of a stage until `kills` lives were taken; the count after each run: how many ended as they should."""
    if live(command(stage, root, root / f"{stage}-whole", 1e9), None, modules=root / "modules.txt") != 0:
        raise SystemExit(f"{stage} fails even if nobody kills it")
    whole = outcome(root / f"{stage}-whole")
    row = {"kills": 0, "runs": 0, "identical": 0, "resumes": 0, "repeated_steps": 0, "late": 0}
    row |= {place: 0 for place in PLACES}
    while row["kills"] < kills:
        run, seconds = root / f"{stage}-killed", dice.choice([0.0, 0.0, 0.05, 1e9])
        words = command(stage, root, run, seconds)
        code = None
        while code is None:
            place = dice.choice(list(PLACES))
            death = (place, dice.randint(1, PLACES[place]))
            # a run without checkpoints begins anew each time, and would pass no place often enough to reach its end
            code = live(words, None if dice.random() < SPARED else death, draws=False)
            row["kills"] += code is None
            row[place] += code is None
            row["late"] += code is None and Run(run, stage).last_step > STEPS / 2
        row["runs"] += 1
        if code != 0:
            raise SystemExit(f"{stage} ended with exit code {code}")
        found, result = outcome(run), json.loads((run / "result.json").read_text())
        different = sorted(key for key in whole.keys() | found.keys() if whole.get(key) != found.get(key))
        if different:
            print(f"{stage}, run {row['runs']}: {len(different)} parts differ, first {different[:5]}", file=sys.stderr)
        row["identical"] += not different
        row["resumes"] += result["resumes"]
        row["repeated_steps"] += result["repeated_steps"]
        shutil.rmtree(run)
        yield row


def fill_disk(stage: str, root: Path, moments: int, dice: random.Random) -> Iterator[dict[str, Any]]:
    """Runs on a disk with too little room, which grows after each error; the count after each run."""
    disk, row = root / "disk", {"moments": 0, "errors": 0, "identical": 0}
    if live(command(stage, root, root / f"{stage}-plain", 0.0), None, modules=root / "modules.txt") != 0:
        raise SystemExit(f"{stage} fails on a disk with room")
    whole = outcome(root / f"{stage}-plain")
    needed = sum(file.stat().st_size for file in (root / f"{stage}-plain").rglob("*") if file.is_file())
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4 * needed}", "tmpfs", str(disk)], check=True)
    try:
        for _ in range(moments):
            run, room, code = disk / stage, dice.choice([dice.randrange(needed), dice.randrange(20_000)]), None
            while code != 0:
                with (disk / "ballast").open("wb") as ballast:
                    os.posix_fallocate(ballast.fileno(), 0, max(shutil.disk_usage(disk).free - room, 1))
                code = live(command(stage, root, run, 0.0), None)
                (disk / "ballast").unlink()
                if code not in (0, 2):
                    raise SystemExit(f"{stage} on a full disk ended with exit code {code}")
                row["errors"] += code == 2
                room += needed // 4
            row["moments"] += 1
            row["identical"] += outcome(run) == whole
            shutil.rmtree(run)
            yield row
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def keep(kind: str, stage: str, row: dict[str, Any]) -> None:
    """Put a row into the file of results, with the command and the commit of its own sitting; other rows stay."""
    write("faults", row, part=f"{kind}: {stage}")


def ask() -> int:
    """Kill, compare, print; exit code 0 if every run ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500, help="lives taken in all, over the stages")
    parser.add_argument("--full", type=int, default=0, help="runs on a disk that fills, of each stage")
    parser.add_argument("--stages", nargs="+", default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write results/faults.json, after each run")
    given = parser.parse_args()
    for stage in given.stages:
        STAGES.get(stage)  # imports it here, once for all lives
    dice, share = random.Random(given.seed), -(-given.kills // len(given.stages))
    found: dict[str, dict[str, Any]] = {"stages": {}, "full": {}}

    def note(kind: str, stage: str, rows: Iterator[dict[str, Any]]) -> None:
        start, own = time.perf_counter(), {"seed": given.seed}
        for row in rows:  # written after each run: a benchmark that breaks off keeps its count
            found[kind][stage] = {**row, **own, "seconds": round(time.perf_counter() - start)}
            if given.write:
                keep(kind, f"{stage}, seed {given.seed}" if given.seed else stage, found[kind][stage])

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "images").mkdir()
        write_images(root / "images")
        for stage in given.stages if share else []:
            note("stages", stage, try_stage(stage, root, share, dice))
        for stage in given.stages if given.full else []:
            note("full", stage, fill_disk(stage, root, given.full, dice))
    print(json.dumps(found, indent=1))
    lost = [row["identical"] < row["runs"] for row in found["stages"].values()]
    return int(any(lost + [row["identical"] < row["moments"] for row in found["full"].values()]))


if __name__ == "__main__":
    sys.exit(ask())
