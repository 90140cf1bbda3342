"""Do torchjd's aggregators train the four tasks, and how does memory grow with the number of tasks?

    python benchmarks/balancing.py [--steps 20]

Every aggregator that needs no further argument trains the embedded four tasks for some steps: finite losses and scores.
Peak memory is that of a whole process with 2 and with 8 tasks (rendered sets under several names, so that only their
number differs), same batch, UPGrad. Writes `benchmarks/results/balancing.json`. About 10 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

from benchmarks.record import write
from vision_mtl.core.errors import UserError
from vision_mtl.training.balancing.construct import build_aggregator
from vision_mtl.training.balancing.options import aggregator_names

HERE = Path(__file__).parent
NUM_TASKS = (2, 8)
OBJECTIVES = ["digits", "cars", "faces", "pets"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = {name: trained(name, given.steps, folder) for name in aggregator_names() if needs_nothing(name)}
        memory = {str(count): peak_memory(count, given.steps, folder) for count in NUM_TASKS}
    ratio = memory["8"] / memory["2"]
    found = {"aggregators": rows, "peak_megabytes": memory, "ratio_8_to_2": ratio}
    write("balancing", {"steps": given.steps, **found})
    passed = sum(row["status"] == "completed" for row in rows.values())
    print(f"{passed} of {len(rows)} aggregators trained; memory of 8 tasks / 2 tasks: {ratio:.2f}")
    return 0 if passed == len(rows) and ratio <= 1.5 else 1


def needs_nothing(name: str) -> bool:
    """Whether the aggregator can be built without an argument from the user."""
    try:
        build_aggregator(name, {}, OBJECTIVES)
    except UserError:
        return False
    return True


def train(words: list[str], root: str) -> tuple[int, float]:
    """One finetune run as a process of its own: (exit code, peak megabytes)."""
    command = [sys.executable, str(HERE.parent / "train.py"), "--stage", "finetune", "--data.root", root, *words]
    command += ["--finetune.num_evaluations", "1", "--track.tensorboard", "false", "--device", "cpu"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    return done.returncode, max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, before) / 1024


def trained(name: str, steps: int, folder: str) -> dict[str, Any]:
    """What came of training with the aggregator."""
    run, start = Path(folder) / name, time.perf_counter()
    code, _ = train(["--balance.name", name, "--optim.steps", str(steps), "--run_dir", str(run)], folder)
    result = json.loads((run / "result.json").read_text()) if code == 0 else {"status": f"exit code {code}"}
    row = {"status": result["status"], "seconds": round(time.perf_counter() - start, 1)}
    print(name, row, flush=True)
    return row


def peak_memory(num_tasks: int, steps: int, folder: str) -> float:
    """Megabytes of a run with so many tasks, measured in a process of its own, so that no other run counts."""
    words = [w for i in range(num_tasks) for w in (f"--tasks.task{i}.source", f"rendered/{OBJECTIVES[1 + i % 3]}")]
    words += ["--balance.name", "UPGrad", "--optim.steps", str(steps), "--run_dir", str(Path(folder) / f"m{num_tasks}")]
    code = f"import benchmarks.balancing as b; print(b.train({words!r}, {folder!r})[1])"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=True)
    megabytes = float(done.stdout.split()[-1])
    print(f"{num_tasks} tasks: {megabytes:.0f} MB", flush=True)
    return megabytes


if __name__ == "__main__":
    sys.exit(main())
