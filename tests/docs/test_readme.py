"""README.md and docs/clusters.md are executed: each command at smoke size, in order, on a stranger's images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from my_images import CLASSES, write_images
from readme_commands import NOT_RUN, README, ROOT, SERVES, at_smoke_size, commands

from vision_mtl.cli.command import main
from vision_mtl.config.stage import STAGES
from vision_mtl.data.sources.rendered import IMAGES_PER_CLASS

pytestmark = pytest.mark.slow  # the documents' commands in processes of their own

TEXT = README.read_text("utf-8") + (ROOT / "docs" / "clusters.md").read_text("utf-8")
MADE_OF_A_FOLDER = ("pretrain", "probe", "predict", "export")  # a stranger's four commands


def test_every_stage_has_a_command_in_the_readme() -> None:
    found = [command.stage for command in commands(TEXT)]
    assert set(found) == set(STAGES.names()) - set(SERVES)
    start = found.index("pretrain")
    assert tuple(found[start : start + 4]) == MADE_OF_A_FOLDER, "the four commands of one's own folder come first"


def test_commands_are_found_where_they_stand() -> None:
    block = "```\npython train.py --stage pretrain \\\n  --seed 1\n```\n"
    text = f"{block}<!-- needs a network -->\n{block}| a | `--stage probe --init_from a`, `--seed` |\n"
    assert [c.words for c in commands(text)] == [
        ["--stage", "pretrain", "--seed", "1"],
        ["--stage", "probe", "--init_from", "a"],
    ]
    assert all(len(word) > 3 for word in NOT_RUN)


def test_every_command_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "MY")
    for rendered in IMAGES_PER_CLASS:
        monkeypatch.setitem(IMAGES_PER_CLASS, rendered, 40)
    for name in ("configs", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for command in commands(TEXT):
        code = main(at_smoke_size(command, tmp_path))
        said = capsys.readouterr()
        assert code == 0, f"{' '.join(command.words)}\n{said.err}"
        assert "results: " in said.out
    answers = json.loads((tmp_path / "runs/pets-answers/predictions.json").read_text("utf-8"))
    assert len(answers) == 9
    assert {answer["tasks"]["pets"]["class"] for answer in answers} <= set(CLASSES)
    assert (tmp_path / "runs/pets-export/model.onnx").is_file()
    result = json.loads((tmp_path / "runs/pets/result.json").read_text())
    assert result["data"]["unreadable"] == 1 and result["data"]["num_images"] == 240
    assert any("broken ☹.jpg" in warning for warning in result["warnings"])


FAKES = {
    "srun": 'exec "$@"',
    "scontrol": 'echo "$@" >> "$HERE/scontrol"',
    "python": """
echo "$@" >> "$HERE/python"
if [ -e "$HERE/saved" ]; then exit 0; fi
trap 'touch "$HERE/saved"; exit 130' TERM
touch "$HERE/begun"
while true; do sleep 0.05; done""",
}


def test_a_slurm_job_that_is_preempted_is_requeued_and_goes_on_in_its_folder(tmp_path: Path) -> None:
    for name, body in FAKES.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/bash\n{body}\n")
        file.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HERE": str(tmp_path)}
    environment |= {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1"}
    environment.pop("RUN_DIR", None)
    script = ["bash", str(ROOT / "docs/slurm.sbatch"), "--stage", "pretrain", "--data.root", "a b"]
    job = subprocess.Popen(script, env=environment, start_new_session=True)
    while not (tmp_path / "begun").exists():
        assert job.poll() is None
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGTERM)  # Slurm tells the script and its steps alike
    assert job.wait(60) == 130
    assert (tmp_path / "scontrol").read_text() == "requeue 77\n"
    assert subprocess.run(script, env=environment, timeout=60).returncode == 0
    once = "train.py --run_dir runs/slurm-77 --stage pretrain --data.root a b\n"
    assert (tmp_path / "python").read_text() == once * 2
    assert (tmp_path / "scontrol").read_text() == "requeue 77\n"
