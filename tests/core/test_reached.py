"""What was reached outlives the process, and going on is counted."""

from pathlib import Path

from vision_mtl.core.reached import LENGTH, NAME, Reached


def test_steps_taken_twice_are_counted(tmp_path: Path) -> None:
    first = Reached.read(tmp_path)
    assert (first.step, first.resumes, first.repeated_steps) == (0, 0, 0)
    for step in range(1, 1001):
        first.to(step)
    second = Reached.read(tmp_path)
    assert second.go_on(980) == 20 and second.step == 980  # a shorter number over a longer one
    second.to(990)
    third = Reached.read(tmp_path)
    assert (third.step, third.resumes, third.repeated_steps) == (990, 1, 20)
    assert third.go_on(980) == 10
    assert (Reached.read(tmp_path).resumes, Reached.read(tmp_path).repeated_steps) == (2, 30)
    assert (tmp_path / NAME).stat().st_size == LENGTH


def test_a_checkpoint_ahead_of_the_file_repeats_nothing(tmp_path: Path) -> None:
    assert Reached(tmp_path / NAME, step=3).go_on(5) == 0


def test_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"step": 5}')
    assert Reached.read(tmp_path).step == 0
