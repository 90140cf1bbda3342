"""Run arms x seeds x label fractions, and report paired differences with intervals: what helped, and by how much.

An arm is a list of stages with options. Runs that several arms have in common are run once. The same command resumes:
finished runs are kept. Each run reads its test images once, at its end; every choice is made on validation images.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from vision_mtl.config.plugins import loaded_plugins
from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import STAGES
from vision_mtl.core.files import atomic_write_json
from vision_mtl.core.run import Run


@STAGES.register("study")
@dataclass(frozen=True, kw_only=True)
class Study(Stage):
    """Plan the runs, report what the design can detect, run them, compare the arms, write the report."""

    sections: ClassVar = ("data", "tasks", "backbone", "decoder", "runtime", "track", "score")
    # many runs at a time: each gets one core and keeps few files
    defaults: ClassVar = {
        "runtime.num_threads": 1,
        "track.num_probes": 0,
        "track.num_pictures": 0,
        "track.keep_checkpoints": 1,
        "track.tensorboard": False,
        "score.probe_images": 0,
    }
    changeable: ClassVar = (*Stage.changeable, "study.num_jobs", "study.backend", "study.address")
    results: ClassVar = (
        ("report.html", "the report, with figures: open it in a browser"),
        ("report.md", "the same as text"),
        ("study.json", "every number of the report"),
        ("runs", "a folder for each run, which --init_from takes"),
    )

    question: str = "Does self-supervised pretraining help where labels are few?"
    """Question that the study answers, printed below the report's title."""
    arms: dict[str, Any] = field(default_factory=dict)
    """Arms by name, each a list of stages or a mapping of stages, extends, note, options by stage, backbone (in all of
    its stages), separate, seed_offset, grid and not_independent (tasks that its weights may know). Empty: labelled_only
    (finetune) and pretrained (pretrain, then finetune)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options by stage, for that stage in every arm, as in a config file."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    """Seeds that every arm is run with; --seed is added to each."""
    fractions: list[float] = field(default_factory=lambda: [0.1])
    """Shares of the training and validation labels, each in (0, 1] and compared separately; smaller subsets lie within
    larger ones."""
    compare: list[str] = field(default_factory=list)
    """Comparisons as "ARM - BASELINE". Empty: every arm minus the first."""
    metric: Literal["accuracy", "balanced_accuracy"] = "accuracy"
    """Metric of tasks with classes; other tasks have their own. accuracy: share of correct images; balanced_accuracy:
    the mean over classes."""
    rope: float | dict[str, float] = 0.01
    """Largest difference that does not matter (region of practical equivalence), 0 or more: arms whose interval lies
    within it are equivalent. A number is for tasks scored in [0, 1], 0.01 being 1 point; other tasks have none unless
    given one by name, in units of the label, as {TASK: 0.5}. 0: no arms are called equivalent."""
    guard_skew: bool = False
    """Widen intervals where differences over seeds are skewed (docs/statistics.md)."""
    earlier_pretexts: bool = False
    """Damage by downsample and neighbour as before their options `enlarged` and `colours`. true in studies begun then,
    so that their finished runs stay comparable with the rest."""
    earlier_pretraining: bool = False
    """Pretraining without given pretexts or optim as before the default mixture had contrast: three repairs, 64 images
    a step. true in studies begun then."""
    num_tuning_seeds: int = 1
    """Seeds to search an arm's grid with, 1 or more; they are not among the compared seeds."""
    expected_std: float = 0.02
    """Expected standard deviation of paired differences over seeds on many test images, to report the detectable
    difference beforehand. The variation that few test images add is included by itself."""
    share: bool = True
    """Run once what several arms have in common. false: run each arm separately."""
    num_jobs: int = 0
    """Runs at a time. 0: one per core, or one if they train on a GPU."""
    backend: Literal["loky", "dask", "ray"] = "loky"
    """Scheduler of the runs. loky: this machine; dask, ray: a cluster whose machines share the file system."""
    address: str | None = None
    """Address of the dask scheduler or ray cluster. null: start a local one."""
    keep: Literal["best", "all"] = "best"
    """Checkpoints of the compared runs to keep. best: the best weights; all: those to resume from as well."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.recipes import build
        from vision_mtl.recipes.study import (
            DEFAULT_ARMS,
            arm_roles,
            check_study,
            collect_warnings,
            delete_resume_states,
            option_warnings,
            plan_final_runs,
            plan_first_candidates,
            read_pairs,
            read_ropes,
            report_plan,
            run_job,
            trains_on_gpu,
        )
        from vision_mtl.recipes.study_options import composer
        from vision_mtl.study.arms import read_arms
        from vision_mtl.study.collect import Collection, compare_arms, score_rows
        from vision_mtl.study.design import detectable_differences
        from vision_mtl.study.grid_search import Chosen, choose, plan_candidates, tuning_seeds
        from vision_mtl.study.improvements import overall_improvements, with_improvements
        from vision_mtl.study.independence import check_tasks, is_independent, judged_apart, with_independence
        from vision_mtl.study.plan import Plan
        from vision_mtl.study.record import commit_warning, study_record
        from vision_mtl.study.report import write_report
        from vision_mtl.study.runner import Runner
        from vision_mtl.study.split_check import check_splits
        from vision_mtl.study.starts import check_seeds, planned_scopes, with_starts
        from vision_mtl.training.progress import phase

        # what to run
        start, roles = time.perf_counter(), arm_roles()
        arms = read_arms(self.arms or DEFAULT_ARMS, roles)
        pairs = read_pairs(self.compare, list(arms))
        seeds = [config.seed + seed for seed in self.seeds]
        check_study(config, seeds, self.fractions, self.options, self.num_tuning_seeds)
        check_tasks(arms, config.tasks)
        for text in option_warnings(self.options):
            run.warn(text)
        pool = build.open_pool(config, run)  # decoded before the runs, which then share it
        ropes = read_ropes(self.rope, {task: target.kind for task, target in pool.targets.items()})
        independent = partial(is_independent, arms)
        compose = composer(config, self.options, self.earlier_pretexts, self.earlier_pretraining)
        plan = Plan(compose, config.section("tasks"), self.fractions, roles, self.share)
        candidates = plan_candidates(plan, arms, self.fractions, tuning_seeds(seeds, self.num_tuning_seeds))
        finals = {} if candidates else plan_final_runs(plan, arms, self.fractions, seeds, {})
        first = plan_first_candidates(plan, arms, self.fractions, seeds)
        check_seeds(*first, arms, seeds)
        before = detectable_differences(pool, pairs, self.fractions, len(seeds), self.expected_std, independent)
        report_plan(run, plan, before, len(seeds), planned_scopes(*first, pairs, self.fractions, seeds))

        # run it, the grids first
        num_jobs = self.num_jobs or (1 if trains_on_gpu(config.device) else 0)
        job = partial(run_job, launch=run.launch, plugins=loaded_plugins())
        runner = Runner(run.folder.absolute(), job, num_jobs, self.backend, self.address, run.speaker)
        chosen: Chosen = {}
        if candidates:
            run.say(f"searching the grids on validation images: {len(plan.nodes)} runs")
            runner.run(plan)
            chosen = choose(plan, arms, candidates, runner.folder)
            finals = plan_final_runs(plan, arms, self.fractions, seeds, chosen)
        runner.run(plan)
        if self.keep == "best":
            delete_resume_states(runner.folder, plan, finals)

        # compare the arms, and report
        check_splits(plan, runner.folder, pool.summary())
        with phase(run.speaker, "comparing the arms"):
            collection = Collection(plan, finals, runner.folder, seeds, self.metric)
            judged = judged_apart(compare_arms(collection, pairs, self.fractions, self.guard_skew, ropes), arms)
            comparisons = with_improvements(with_starts(judged, plan, finals, seeds), collection)
            improvements = overall_improvements(comparisons, collection)
            scores = with_independence(score_rows(collection, list(arms), self.fractions, self.guard_skew), arms)
        asked = {
            "name": run.folder.name,
            "question": self.question,
            "seeds": seeds,
            "fractions": self.fractions,
            "metric": self.metric,
        }
        record = study_record(
            asked,
            list(config.tasks),
            pool,
            arms,
            plan,
            runner,
            finals=finals,
            chosen=chosen,
            scores=scores,
            comparisons=comparisons,
            improvements=improvements,
            before=before,
        )
        from_runs = collect_warnings(record["runs"], run.warnings)
        record["warnings"] = [*run.warnings, *commit_warning(record["runs"]), *from_runs]
        record["config"] = config.to_yaml()
        atomic_write_json(run.folder / "study.json", record)
        with phase(run.speaker, "writing the report"):
            write_report(record, run.folder)
        metrics = {key: record[key] for key in ("improvements", "cost", "arm_costs")}
        metrics |= {"comparisons": comparisons, "scores": scores}
        run.write_result("completed", metrics=metrics, data=pool.summary(), seconds=time.perf_counter() - start)
