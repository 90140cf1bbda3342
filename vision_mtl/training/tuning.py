"""Which settings of the machine make this network's step fastest here: found by timing a few steps of copies of it.

Setting by setting, the values that are left open are timed against the best so far, step by step in turn, so that what
slows the machine for a moment slows all of them. A value must gain 3 % to be taken. The network itself, its batches and
the random numbers are as they were: only copies are trained.
"""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args, get_type_hints

import torch
from torch import nn

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.memory import can_keep_freed_memory, keep_freed_memory
from vision_mtl.training.loop import Trainer
from vision_mtl.training.optimiser import Kernel, Optim
from vision_mtl.training.runtime import Allocator, Runtime

LEAST_GAIN = 0.03  # of a step's time: less is within what repeats of one setting differ by
ROUNDS = 5  # steps of each value, in turn
FEWEST_ROUNDS, ROUND_SECONDS = 2, 5.0  # after so many seconds fewer must do: steps of large networks are slow
LIMIT_SECONDS = 20.0  # of timing, without compiling; what is not tried by then keeps its default
LONG_SECONDS = 1200.0  # of training: compiling takes half a minute, so it is tried only on runs at least as long
COMPILE_WARM_UP = 3  # steps: shapes that vary are seen to vary

Measure = Callable[[Sequence["Choice"]], Sequence[float]]  # settings -> seconds of a step under each; inf: it failed


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Every setting, none left open. `num_threads` 0: as the process has it."""

    precision: str  # of the forward pass: fp32 or bf16
    channels_last: bool
    compile: bool
    optimiser: Kernel
    allocator: Allocator
    num_threads: int

    @staticmethod
    def of(values: Mapping[str, Any]) -> Choice:
        """What `to_json` gave. Raises `UserError` for a setting or a value that there is not."""
        hints = get_type_hints(Choice)
        for name in {**values, **hints}:
            if name not in hints:
                raise unknown("runtime.tuned setting", name, hints)
            if name not in values:
                raise UserError(f"runtime.tuned must name every setting; {name} is missing. Leave it to runtime.tune.")
            allowed = ("fp32", "bf16") if name == "precision" else get_args(hints[name])
            wrong = values[name] not in allowed if allowed else type(values[name]) is not hints[name]
            if wrong:
                rule = " or ".join(allowed) if allowed else {int: "a whole number", bool: "true or false"}[hints[name]]
                raise UserError(f"runtime.tuned.{name} must be {rule}; found {values[name]!r}.")
        return Choice(**values)

    def to_json(self) -> dict[str, Any]:
        """The form that `config.yaml` and `result.json` hold."""
        return asdict(self)

    def applied(self, runtime: Runtime) -> Runtime:
        """The runtime with nothing left open."""
        own = {f.name for f in fields(Runtime)} - {"channels_last"}
        values = {key: value for key, value in self.to_json().items() if key in own}
        return replace(runtime, **values, channels_last="on" if self.channels_last else "off")

    def differs(self, other: Choice) -> str:
        """Where it differs from `other`, in words; empty if nowhere."""
        own, theirs = self.to_json(), other.to_json()
        return ", ".join(f"{key} {own[key]}" for key in own if own[key] != theirs[key])


def default_choice(runtime: Runtime, backbone: nn.Module, device: str) -> Choice:
    """What `runtime` means on `device` (cpu, cuda or mps) without timing anything."""
    return Choice(
        precision="bf16" if runtime.half_precision(device) else "fp32",
        channels_last=runtime.layout(backbone) == torch.channels_last,
        compile=runtime.compile,
        optimiser="auto",
        allocator=runtime.allocator,
        num_threads=torch.get_num_threads(),
    )


def alternatives(runtime: Runtime, start: Choice, device: str) -> dict[str, list[Any]]:
    """Setting -> the values to try beside `start`'s; only of settings that `runtime` leaves open."""
    cores, found = start.num_threads, {}
    if runtime.num_threads == 0 and device == "cpu":
        found["num_threads"] = [count for count in dict.fromkeys((cores // 2, cores // 4)) if count >= 1]
    if runtime.channels_last == "auto":
        found["channels_last"] = [True, False]
    if runtime.tune == "any_precision" and runtime.precision == "auto" and device != "mps":
        found["precision"] = ["fp32", "bf16"]
    if device != "mps":
        found["optimiser"] = ["fused", "foreach"] if start.optimiser != "auto" else ["foreach"]
    if runtime.allocator == "system" and device == "cpu" and can_keep_freed_memory():
        found["allocator"] = ["keep"]
    return found


def choose(
    start: Choice,
    open_settings: Mapping[str, Sequence[Any]],
    measure: Measure,
    *,
    now: Callable[[], float] = time.perf_counter,
) -> tuple[Choice, float]:
    """The fastest settings found from `start` on, one setting after the other, and the seconds of their step."""
    best, seconds, begun = start, float("nan"), now()
    for name, values in open_settings.items():
        rivals = [best, *(replace(best, **{name: value}) for value in values if value != getattr(best, name))]
        if len(rivals) == 1 or now() - begun > LIMIT_SECONDS:
            continue
        found = list(measure(rivals))
        fastest = min(range(len(rivals)), key=found.__getitem__)
        if found[fastest] < (1 - LEAST_GAIN) * found[0]:
            best = rivals[fastest]
        seconds = found[rivals.index(best)]
    return best, seconds


def run_seconds(optim: Optim, step_seconds: float) -> float:
    """How long the training of `optim` lasts, at most, if a step takes `step_seconds`."""
    ends = [optim.max_seconds or float("inf"), (optim.steps or float("inf")) * step_seconds]
    return min(ends)


def compiling_pays(plain: float, compiled: float, cost: float, lasts: float) -> bool:
    """Whether `cost` seconds of compiling are won back in a run that `lasts` so many seconds without it."""
    return cost + lasts * compiled / plain < (1 - LEAST_GAIN) * lasts


class Trials:
    """Times steps of copies of `trainer`'s network under other settings. `device` is cpu, cuda or mps."""

    def __init__(self, trainer: Trainer, runtime: Runtime, device: str, now: Callable[[], float]) -> None:
        self.trainer, self.runtime, self.device, self.now = trainer, runtime, device, now
        self.current = default_choice(runtime, trainer.model.backbone, device)  # what the process is set to

    def __call__(self, choices: Sequence[Choice]) -> list[float]:
        """Median seconds of a step under each of `choices`; inf where it fails."""
        # bfloat16 comes last: accelerate's precision is that of its newest object, and float32 does not ask for it
        order = sorted(range(len(choices)), key=lambda number: choices[number].precision == "bf16")
        copies = {number: self._copy(choices[number]) for number in order}
        found: list[list[float]] = [[] for _ in choices]
        begun = self.now()
        for turn in range(ROUNDS + 1):
            if turn > FEWEST_ROUNDS and self.now() - begun > ROUND_SECONDS:
                break
            for number, choice in enumerate(choices):
                seconds = self._step(copies[number], choice)
                if turn:  # the first is a warm-up
                    found[number].append(seconds)
        return [statistics.median(values) for values in found]

    def compiled(self, choice: Choice) -> tuple[float, float]:
        """(seconds of the first steps, median seconds of a later one) with `torch.compile`; inf where it fails."""
        other = self._copy(replace(choice, compile=True))
        first = sum(self._step(other, choice) for _ in range(COMPILE_WARM_UP))
        return first, statistics.median(self._step(other, choice) for _ in range(ROUNDS))

    def _copy(self, choice: Choice) -> Trainer:
        model, balancing = copy.deepcopy((self.trainer.model, self.trainer.balancing))  # one copy of what they share
        plain = replace(choice, allocator="system")  # of the whole process: set when it is this one's turn
        return rebuilt(self.trainer, plain, self.runtime, self.device, model, balancing)

    def _step(self, trainer: Trainer, choice: Choice) -> float:
        self.set(choice)
        self._wait()
        start = self.now()
        try:
            trainer.model.train()
            trainer.step()
        except (RuntimeError, MemoryError, UserError):  # no memory, no compiler, a loss that is no number: not this one
            return float("inf")
        self._wait()
        return self.now() - start

    def set(self, choice: Choice) -> None:
        """Make the process-wide settings those of `choice`."""
        if torch.get_num_threads() != choice.num_threads:
            torch.set_num_threads(choice.num_threads)
        if self.current.allocator != choice.allocator:
            keep_freed_memory(choice.allocator == "keep")
        self.current = choice

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def rebuilt(
    trainer: Trainer,
    choice: Choice,
    runtime: Runtime,
    device: str,
    model: nn.Module | None = None,
    balancing: nn.Module | None = None,
) -> Trainer:
    """A trainer at step 0 under the settings of `choice`, of the same network, or of `model` and `balancing`."""
    settled = choice.applied(runtime)
    return Trainer(
        trainer.model if model is None else model,
        trainer.objective,
        trainer.feed,
        trainer.optim,
        settled.accelerator(device),
        torch.channels_last if choice.channels_last else torch.contiguous_format,
        trainer.seed,
        choice.compile,
        trainer.balancing if model is None else balancing,
        kernel=choice.optimiser,
    )


def tune(trainer: Trainer, runtime: Runtime, now: Callable[[], float] = time.perf_counter) -> tuple[Choice, float]:
    """The fastest settings of what `runtime` leaves open, and the seconds of their step (NaN if nothing is open).

    Nothing of the trainer changes, nor the random numbers; process-wide settings are put back.
    """
    device = trainer.accelerator.device.type
    start = default_choice(runtime, trainer.model.backbone, device)
    trials = Trials(trainer, runtime, device, now)
    with torch.random.fork_rng():
        best, seconds = choose(start, alternatives(runtime, start, device), trials, now=now)
        lasts = run_seconds(trainer.optim, seconds)
        if not best.compile and device != "mps" and lasts >= LONG_SECONDS:
            cost, compiled = trials.compiled(best)
            if compiling_pays(seconds, compiled, cost, lasts):
                best, seconds = replace(best, compile=True), compiled
    trials.set(start)
    return best, seconds


def machine(device: str) -> dict[str, Any]:
    """What a choice holds for beside the network: processor, cores that may be used, device, versions."""
    name = torch.cuda.get_device_name() if device == "cuda" else device
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "device": name,
        "torch": torch.__version__,
    }


def processor() -> str:
    """The processor's name where Linux tells it, else empty."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""
