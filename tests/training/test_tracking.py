"""What is recorded, when, and what a resumed run does not repeat."""

import json
from pathlib import Path

from vision_mtl.core.run import Run
from vision_mtl.training.options import Optim, Track
from vision_mtl.training.step_record import Progress, StepRecord
from vision_mtl.training.tracking import Milestones, Tracker


def drive(tracker: Tracker, steps: range) -> None:
    progress = tracker.progress
    for step in steps:
        progress.step, progress.seconds, progress.images_seen = step + 1, float(step + 1), 8 * (step + 1)
        tracker(progress, StepRecord(step, float(step), {"blur": 2.0 * step}, 1.0, 0.1))


def make(folder: Path, actions: list[Milestones], start: int = 0, **track) -> tuple[Tracker, list[int]]:
    saved: list[int] = []
    run = Run(folder, "pretrain")
    folder.mkdir(exist_ok=True)
    progress = Progress(start, float(start), 8 * start)
    options = Track(**{"tensorboard": False, **track})
    tracker = Tracker(run, options, Optim(steps=100), progress, lambda: saved.append(progress.step), actions)
    return tracker, saved


def test_lines_hold_means_since_the_last(tmp_path: Path) -> None:
    tracker, _ = make(tmp_path, [], log_every_steps=10)
    drive(tracker, range(100))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, *range(10, 101, 10)]
    assert lines[2]["loss"] == sum(range(10, 20)) / 10 and lines[2]["loss.blur"] == 2 * lines[2]["loss"]
    assert lines[-1]["images_seen"] == 800 and lines[-1]["images_per_second"] == 8.0


def test_milestones_are_reached_once_each_and_not_again_after_resuming(tmp_path: Path) -> None:
    reached: list[int] = []
    tracker, _ = make(tmp_path, [Milestones(4, lambda progress: reached.append(progress.step))])
    drive(tracker, range(60))
    assert reached == [25, 50]
    resumed, _ = make(tmp_path, [Milestones(4, lambda progress: reached.append(progress.step))], start=60)
    drive(resumed, range(60, 100))
    assert reached == [25, 50, 75, 100]


def test_checkpoints_follow_training_time(tmp_path: Path) -> None:
    tracker, saved = make(tmp_path, [], checkpoint_every_seconds=30)
    drive(tracker, range(100))
    assert saved == [30, 60, 90]


def test_tensorboard_holds_the_scalars(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker, _ = make(tmp_path, [], tensorboard=True)
    drive(tracker, range(20))
    tracker.scalars(20, {"knn/pets": 0.5})
    tracker.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {"train/loss", "train/loss.blur", "knn/pets"} <= set(events.Tags()["scalars"])
    assert [event.value for event in events.Scalars("knn/pets")] == [0.5]
