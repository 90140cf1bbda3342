"""How long until the first step, how much memory does the default run take, and does it grow?

    python benchmarks/startup.py [PART ...] [--root data] [--steps 1000] [--threads 2]

Three parts, all unless some are named, each command in a process of its own. `start`: `train.py --help`, and the
default `--stage pretrain` with a warm store (it is run for one step before), from the command to the end of its first
step. `default`: 100 steps of it to its end; peaks are those of opening the images, training, scoring and drawing.
`long`: `--steps` steps of 16 images, with the resident memory after every 50; `growth_mb` is that after the last step
less that after a fifth of them, without probes and pictures on the way. Linux only. Writes
`benchmarks/results/startup.json`, each part with what its sitting was. About four minutes on 2 cores; memory, unlike
seconds, may be measured on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(HERE.parent.parent))  # runs from a clone, without installation

PARTS = ("start", "default", "long")
EVERY = 50  # steps
TARGETS = {"help_seconds": 2.0, "first_step_seconds": 10.0, "peak_mb": 2000.0}
QUIET = ("--track.num_probes", "0", "--track.num_pictures", "0", "--track.tensorboard", "false")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--root", default="data", help="where the decoded store is, or will be")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)  # begun at, where to write, last step
    given = parser.parse_args(_before_words(sys.argv[1:]))
    if given.inside:
        begun, found, last = given.inside
        inside(float(begun), Path(found), int(last), sys.argv[sys.argv.index("--") + 1 :])
        return
    if unknown := set(given.parts) - {*PARTS}:
        parser.error(f"parts are {', '.join(PARTS)}; found {', '.join(sorted(unknown))}")
    words = ["--stage", "pretrain", "--data.root", given.root, "--runtime.num_threads", str(given.threads)]
    observed(words, last=1)  # builds the store
    measures = {"start": start, "default": default, "long": long}
    for part in given.parts or PARTS:
        keep(part, {"threads": given.threads, **measures[part](words, given.steps)})


def keep(part: str, found: dict[str, Any]) -> None:
    """Write one part of the result file beside the others, and say its figures."""
    from benchmarks.record import write

    write("startup", {"targets": TARGETS, **found}, part=part)
    print(f"{part}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items() if isinstance(value, float)))


def start(words: list[str], steps: int) -> dict[str, Any]:
    """Medians of three: seconds of `--help`, and from the command to the end of the first step."""
    return {
        "help_seconds": sorted(help_seconds() for _ in range(3))[1],
        "first_step_seconds": sorted(observed(words, last=1)["steps"][0]["seconds"] for _ in range(3))[1],
    }


def default(words: list[str], steps: int) -> dict[str, Any]:
    """The highest memory of the default run in each of its phases, and in all."""
    found = observed([*words, "--optim.steps", "100"])
    return {"peak_mb": max(found["peaks_mb"].values()), **found}


def long(words: list[str], steps: int) -> dict[str, Any]:
    """Resident memory over so many steps."""
    own = ["--optim.steps", str(steps + 1), "--optim.batch_size", "16", *QUIET]
    found = observed([*words, *own], last=steps)
    return {"growth_mb": growth(found["steps"]), **found}


def _before_words(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else words


def help_seconds() -> float:
    """Of `train.py --help`, from the command to its end."""
    start = time.perf_counter()
    command = [sys.executable, str(HERE.parent.parent / "train.py"), "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def observed(words: list[str], last: int = 0) -> dict[str, Any]:
    """A run of the command in a new process and folder: `steps` (number, seconds since the command, MB), `peaks_mb`.

    After step `last` the process ends, unless it is 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, str(HERE), "--inside", str(time.time()), str(found), str(last), "--", *words]
        subprocess.run([*command, "--run_dir", f"{folder}/run"], check=True, stdout=subprocess.DEVNULL)
        return json.loads(found.read_text())


def growth(steps: list[dict[str, float]]) -> float:
    """MB after the last step less MB after a fifth of them."""
    return steps[-1]["mb"] - next(s["mb"] for s in steps if s["step"] >= steps[-1]["step"] / 5)


def inside(begun: float, found: Path, last: int, words: list[str]) -> None:
    """In the process of the run: the command, with a look at the clock and the memory at its steps and phases."""
    from vision_mtl.cli.command import main as command
    from vision_mtl.recipes import build, fit, pretrain_outputs, repair_scores
    from vision_mtl.training.loop import Trainer

    steps: list[dict[str, float]] = []
    peaks: dict[str, float] = {}
    step = Trainer._take_step

    def watched(trainer: Trainer) -> object:
        record = step(trainer)
        if trainer.progress.step == 1 or trainer.progress.step % EVERY == 0:
            steps.append({"step": trainer.progress.step, "seconds": time.time() - begun, "mb": memory("VmRSS")})
        if trainer.progress.step == last:
            found.write_text(json.dumps({"steps": steps, "peaks_mb": peaks}))
            os._exit(0)
        return record

    Trainer._take_step = watched
    for name, owner, function in (
        ("open", build, "open_pool"),
        ("fit", fit, "fit"),
        ("score", repair_scores, "score_repairs"),
        ("draw", pretrain_outputs, "write_figures"),
    ):
        setattr(owner, function, _with_peak(name, getattr(owner, function), peaks))
    code = command(words)
    found.write_text(json.dumps({"steps": steps, "peaks_mb": peaks, "seconds": time.time() - begun}))
    sys.exit(code)


def _with_peak(name: str, function: Any, peaks: dict[str, float]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        result = function(*args, **kwargs)
        peaks[name] = memory("VmHWM")
        return result

    return call


def memory(field: str) -> float:
    """MB (1e6 bytes) of this process by that field of `/proc/self/status`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
