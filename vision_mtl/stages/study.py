"""Study: arms, seeds and label fractions -> paired differences with intervals, and a report of what helped.

An arm is a list of stages with options. Equal runs of several arms are run once; whatever is finished stays so, and the
same command goes on. The test images of a run are read once, at its end; validation images choose everything else."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from vision_mtl.config.plugins import loaded_plugins
from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.stage import STAGES, Stage
from vision_mtl.core.files import atomic_write_json
from vision_mtl.core.run import Run


@STAGES.register("study")
@dataclass(frozen=True, kw_only=True)
class Study(Stage):
    """Plan, say what can be seen, run, compare, report."""

    sections: ClassVar = ("data", "tasks", "backbone", "decoder", "runtime", "track")
    # its runs are many: each has a core, and keeps little
    defaults: ClassVar = {
        "runtime.num_threads": 1,
        "track.num_probes": 0,
        "track.num_pictures": 0,
        "track.keep_checkpoints": 1,
        "track.tensorboard": False,
    }
    changeable: ClassVar = (*Stage.changeable, "study.num_jobs", "study.backend", "study.address")
    results: ClassVar = (("report.html", "the report, with figures"), ("report.md", "the same as text"))

    question: str = "Does self-supervised pretraining help where labels are few?"
    """The report's title."""
    arms: dict[str, Any] = field(default_factory=dict)
    """Arm -> its stages, or a mapping of stages, extends, note, options by stage, separate, seed_offset and grid; none:
    labelled_only and pretrained."""
    options: dict[str, Any] = field(default_factory=dict)
    """Stage -> options of that stage in every arm, as in a config of its own."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    """Every arm is run with each; --seed is added to them."""
    fractions: list[float] = field(default_factory=lambda: [0.1])
    """Shares of the training labels, nested, each its own comparison."""
    compare: list[str] = field(default_factory=list)
    """Comparisons as "ARM - BASELINE"; none: every arm minus the first."""
    metric: Literal["accuracy", "balanced_accuracy"] = "accuracy"
    """Of tasks with classes; others keep their own."""
    guard_skew: bool = False
    """Widen intervals where differences over seeds are skewed (docs/statistics.md)."""
    num_tuning_seeds: int = 1
    """Seeds, other than those compared, on which an arm's grid is searched."""
    expected_std: float = 0.02
    """Of paired differences over seeds, for what is said before the runs to be detectable."""
    share: bool = True
    """Run once what several arms have in common; false: each arm on its own."""
    num_jobs: int = 0
    """Runs at a time; 0: one a core, or a single one where they train on a GPU."""
    backend: Literal["loky", "dask", "ray"] = "loky"
    """Who runs them: this machine, or a cluster that sees its folders."""
    address: str | None = None
    """Of the dask scheduler or ray cluster; null: a local one is started."""
    keep: Literal["best", "all"] = "best"
    """Weights of judged runs: best leaves out what they would go on from."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.evaluation.families import family
        from vision_mtl.recipes import build
        from vision_mtl.recipes.study import (
            DEFAULT_ARMS,
            arm_roles,
            check_study,
            drop_states,
            plan_finals,
            read_pairs,
            run_job,
            run_warnings,
            say_plan,
            trains_on_gpu,
        )
        from vision_mtl.recipes.study_options import composer
        from vision_mtl.study.collect import Collection, compare_arms, score_rows
        from vision_mtl.study.design import before_the_runs
        from vision_mtl.study.grid_search import Chosen, choose, plan_candidates, tuning_seeds
        from vision_mtl.study.plan import Plan
        from vision_mtl.study.recipes import read_arms
        from vision_mtl.study.record import study_record
        from vision_mtl.study.report import write_report
        from vision_mtl.study.runner import Runner

        start, roles = time.perf_counter(), arm_roles()
        recipes = read_arms(self.arms or DEFAULT_ARMS, roles)
        pairs = read_pairs(self.compare, list(recipes))
        all_seeds = [config.seed + seed for seed in self.seeds]
        check_study(config, all_seeds, self.fractions, self.options, self.num_tuning_seeds)
        pool = build.open_pool(config, run)  # decoded before the runs, which then share it
        plan = Plan(composer(config, self.options), config.section("tasks"), self.fractions, roles, self.share)
        trials = plan_candidates(plan, recipes, self.fractions, tuning_seeds(all_seeds, self.num_tuning_seeds))
        finals = plan_finals(plan, recipes, self.fractions, all_seeds, {}) if not trials else {}
        before = before_the_runs(pool, pairs, self.fractions, len(all_seeds), self.expected_std)
        say_plan(run, plan, before, len(all_seeds))

        width = self.num_jobs or (1 if trains_on_gpu(config.device) else 0)
        runner = Runner(
            run.folder.absolute(),
            partial(run_job, launch=run.launch, plugins=loaded_plugins()),
            width,
            self.backend,
            self.address,
            run.speaker,
        )
        chosen: Chosen = {}
        if trials:
            run.say(f"searching the grids on validation images: {len(plan.nodes)} runs")
            runner.run(plan)
            chosen = choose(plan, recipes, trials, runner.folder)
            finals = plan_finals(plan, recipes, self.fractions, all_seeds, chosen)
        runner.run(plan)
        if self.keep == "best":
            drop_states(runner.folder, plan, finals)

        collection = Collection(plan, finals, runner.folder, all_seeds, self.metric)
        comparisons = family(compare_arms(collection, pairs, self.fractions, self.guard_skew)) if pairs else []
        scores = score_rows(collection, list(recipes), self.fractions, self.guard_skew)
        asked = {
            "name": run.folder.name,
            "question": self.question,
            "seeds": all_seeds,
            "fractions": self.fractions,
            "metric": self.metric,
        }
        found = {"chosen": chosen, "scores": scores, "comparisons": comparisons, "before": before}
        record = study_record(asked, config.tasks, pool, recipes, plan, runner, **found)
        record |= {"warnings": [*run.warnings, *run_warnings(record["runs"], run.warnings)], "config": config.to_yaml()}
        atomic_write_json(run.folder / "study.json", record)
        write_report(record, run.folder)
        metrics = {"comparisons": comparisons, "scores": scores, "cost": record["cost"]}
        run.write_result("completed", metrics=metrics, data=pool.summary(), seconds=time.perf_counter() - start)
