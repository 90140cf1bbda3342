"""Run a study's plan in parallel: skip finished runs, and after a failure, skip only the runs that need the failed one.

joblib schedules the runs: `loky` on one machine, `dask` and `ray` on a cluster whose machines share the file system.
The runner receives the function that executes a `Job`, so it does not depend on the stages.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from joblib import Parallel, delayed, parallel_config

from vision_mtl.core.console import Console
from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_json
from vision_mtl.core.run import RESULT
from vision_mtl.study.number_format import format_duration
from vision_mtl.study.plan import Node, Plan, fill
from vision_mtl.training.progress import ProgressLine

Backend = Literal["loky", "dask", "ray"]
CLOCK = ".clock.json"  # suffix of a file next to a run's folder: its total time over all starts
POLL_SECONDS = 0.5
SHOWN_FAILURES = 3


@dataclass(frozen=True)
class Job:
    """One run for a worker: a stage, its options as in a config file, and its folder."""

    stage: str
    options: dict[str, Any]
    folder: Path


RunJob = Callable[[Job], str | None]  # returns the error's text, or None


@dataclass
class Runner:
    """Runs plans in `folder`, `num_jobs` at a time (0: one per core)."""

    folder: Path
    run_job: RunJob
    num_jobs: int = 0
    backend: Backend = "loky"
    address: str | None = None  # of a dask scheduler or a ray cluster; None: start a local one
    console: Console | None = None

    @property
    def num_parallel(self) -> int:
        """The number of runs at a time."""
        return self.num_jobs or os.cpu_count() or 1

    def run(self, plan: Plan) -> None:
        """Run all unfinished runs; after they are done, raise `UserError` that names the failed ones."""
        clock = Forecast(plan, self.folder, self.num_parallel)
        failed: dict[str, str] = {}
        with joblib_backend(self.backend, self.num_parallel, self.address):
            for nodes in plan.levels():
                ready = [n for n in nodes if not failed.keys() & set(n.needs) and not finished(self.folder / n.folder)]
                skipped = {n.key: "" for n in nodes if failed.keys() & set(n.needs)}
                failed |= skipped | self._run_side_by_side(plan, ready, clock)
        if failed:
            raise UserError(self._failure(plan, failed))

    def _run_side_by_side(self, plan: Plan, nodes: Sequence[Node], clock: Forecast) -> dict[str, str]:
        """Run one level; return the errors' texts by key."""
        if not nodes:
            return {}
        jobs = [self._job(plan, node) for node in nodes]
        with clock.shown(self.console):
            found = Parallel(n_jobs=min(self.num_parallel, len(jobs)), batch_size=1)(
                delayed(run_timed)(self.run_job, job) for job in jobs
            )
        return {node.key: text for node, text in zip(nodes, found, strict=True) if text is not None}

    def _job(self, plan: Plan, node: Node) -> Job:
        folders = {stage: str(self.folder / plan.nodes[key].folder) for stage, key in node.refers.items()}
        options = fill(node.options, folders)
        if node.start:
            options["init_from"] = str(self.folder / plan.nodes[node.start].folder)
        return Job(node.stage, options, self.folder / node.folder)

    def _failure(self, plan: Plan, failed: dict[str, str]) -> str:
        own = {key: text for key, text in failed.items() if text}
        lines = [
            f"  {self.folder / plan.nodes[key].folder}: {text}" for key, text in list(own.items())[:SHOWN_FAILURES]
        ]
        more = f"\n  and {len(own) - SHOWN_FAILURES} more" if len(own) > SHOWN_FAILURES else ""
        waiting = len(failed) - len(own)
        also = f" {waiting} more runs need them." if waiting else ""
        done = sum(finished(self.folder / node.folder) for node in plan.nodes.values())
        return (
            f"{len(own)} of {len(plan.nodes)} runs failed:\n" + "\n".join(lines) + more + f"\n{done} runs are finished "
            f"and kept.{also} Fix the cause and run the same command again to resume."
        )


def finished(folder: Path) -> bool:
    """Return whether a run has a result with status `completed`."""
    try:
        return json.loads((folder / RESULT).read_text("utf-8"))["status"] == "completed"
    except (OSError, ValueError, KeyError):
        return False


def run_timed(run_job: RunJob, job: Job) -> str | None:
    """Run a job, and add its seconds to the run's clock file."""
    start = time.perf_counter()
    try:
        return run_job(job)
    finally:
        before = read_clock(job.folder)
        seconds, starts = before["wall_seconds"] + time.perf_counter() - start, before["starts"] + 1
        with suppress(UserError):  # if the folder cannot be written, the job has failed already
            atomic_write_json(_clock_file(job.folder), {"wall_seconds": round(seconds, 3), "starts": starts})


def read_clock(folder: Path) -> dict[str, Any]:
    """Return a run's total wall time in seconds and its number of starts."""
    try:
        return json.loads(_clock_file(folder).read_text("utf-8"))
    except (OSError, ValueError):
        return {"wall_seconds": 0.0, "starts": 0}


def _clock_file(folder: Path) -> Path:
    return folder.with_name(folder.name + CLOCK)


class Forecast:
    """Shows how many runs are done, and how long the rest will take, from the mean time of each stage's runs."""

    def __init__(self, plan: Plan, folder: Path, num_parallel: int) -> None:
        self.plan, self.folder, self.num_parallel = plan, folder, num_parallel
        self.done: dict[str, float] = {}  # key of a finished run -> seconds; 0 until its clock file is written

    def text(self) -> str:
        """Return for example `12 of 40 runs done, 2 at a time, about 4 min left`."""
        nodes = self.plan.nodes
        for key, node in nodes.items():
            if not self.done.get(key) and (key in self.done or finished(self.folder / node.folder)):
                self.done[key] = read_clock(self.folder / node.folder)["wall_seconds"]
        seconds: dict[str, list[float]] = {}
        for key, taken in self.done.items():
            seconds.setdefault(nodes[key].stage, []).extend([taken] if taken else [])
        means = {stage: sum(taken) / len(taken) for stage, taken in seconds.items() if taken}
        left = [means.get(node.stage) for key, node in nodes.items() if key not in self.done]
        text = f"{len(self.done)} of {len(nodes)} runs done, {self.num_parallel} at a time"
        if left and None not in left:
            text += f", about {format_duration(sum(s for s in left if s is not None) / self.num_parallel)} left"
        return text

    @contextmanager
    def shown(self, console: Console | None) -> Iterator[None]:
        """Show the text while the block runs; results are read from the folder, which works with every backend."""
        if console is None:
            yield
            return
        line, stop = ProgressLine(console), threading.Event()

        def watch() -> None:
            while not stop.wait(POLL_SECONDS):
                text = self.text()
                line.update(len(self.done) / len(self.plan.nodes), text)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            line.close()


@contextmanager
def joblib_backend(backend: Backend, num_parallel: int, address: str | None) -> Iterator[None]:
    """Use joblib's backend in the block; raise `UserError` if the package that it needs is not installed."""
    if backend == "loky":
        with parallel_config("loky", inner_max_num_threads=1):
            yield
        return
    try:
        importlib.import_module("distributed" if backend == "dask" else "ray")
    except ImportError as error:
        raise UserError(
            f"study.backend {backend} needs a package that is not installed ({error.name or backend}): "
            f"pip install -r requirements-cluster.txt, or --study.backend loky."
        ) from error
    with _dask(num_parallel, address) if backend == "dask" else _ray(num_parallel, address), parallel_config(backend):
        yield


@contextmanager
def _dask(num_parallel: int, address: str | None) -> Iterator[None]:
    from distributed import Client, LocalCluster  # an optional dependency

    with ExitStack() as opened:
        # one thread per worker process: PyTorch's settings are per process
        local = {"n_workers": num_parallel, "threads_per_worker": 1, "dashboard_address": None}
        opened.enter_context(Client(address or opened.enter_context(LocalCluster(**local))))
        yield


@contextmanager
def _ray(num_parallel: int, address: str | None) -> Iterator[None]:
    import ray  # an optional dependency
    from ray.util.joblib import register_ray

    num_cpus = None if address else num_parallel
    ray.init(address=address, num_cpus=num_cpus, include_dashboard=False, logging_level=logging.ERROR)
    register_ray()
    try:
        yield
    finally:
        ray.shutdown()
