"""What arms start from: a comparison whose seeds share one pretraining says so, wherever it is read."""

from __future__ import annotations

import pytest
from report_records import study

from vision_mtl.core.errors import UserError
from vision_mtl.recipes.study import option_warnings, plan_first_candidates, report_plan
from vision_mtl.study.number_format import POINTS
from vision_mtl.study.report import write_report
from vision_mtl.study.starts import check_seeds, planned_scopes, published_weights, with_starts
from vision_mtl.study.verdict_text import headline, summaries, verdict_sentence

ONCE = {"stages": ["pretrain", "finetune"], "pretrain": {"seed": 3}}
SELECTED = {"stages": ["discover", "pretrain", "finetune"], "pretrain": {"selection": "{discover}/selection.parquet"}}
ARMS = {
    "plain": ["finetune"],
    "pretrained": ["pretrain", "finetune"],
    "once": ONCE,
    "once_slow": {"extends": "once", "finetune": {"x": 1}},
    "outside": {"stages": ["finetune"], "finetune": {"init_from": "/r"}},
    "further": {"stages": ["pretrain", "finetune"], "pretrain": {"init_from": "/r"}},
    "discovered": SELECTED,
    "one_discovery": SELECTED | {"discover": {"seed": 0}},
    "file": {"stages": ["pretrain", "finetune"], "pretrain": {"selection": "/x.parquet"}},
    "taught": {"stages": ["pretrain", "finetune"], "pretrain": {"pretexts": {"distil": {"teacher": "net"}}}},
    "taught_by_default": {"stages": ["pretrain", "finetune"], "pretrain": {"pretexts": {"distil": None}}},
    "imagenet": {"stages": ["finetune"], "backbone": {"name": "lite0", "pretrained": True}},
    "imagenet_repair": {"extends": "imagenet", "stages": ["pretrain", "finetune"]},
}
ONE = "over one pretraining: does not say what another pretraining would give"


def row(arm: str, baseline: str, verdict: str = "helps") -> dict:
    return {"arm": arm, "baseline": baseline, "fraction": 0.1, "verdict": verdict}


@pytest.mark.parametrize(
    ("arm", "baseline", "pretrainings", "limit"),
    [
        ("pretrained", "plain", 3, ""),
        ("discovered", "plain", 3, ""),
        ("discovered", "pretrained", 3, ""),
        ("once", "plain", 1, "this pretraining"),
        ("plain", "once", 1, "this pretraining"),
        ("outside", "plain", 1, "this pretraining"),
        ("further", "pretrained", 1, "this pretraining"),  # a pretraining each, all from one
        ("one_discovery", "plain", 1, "this discovery"),
        ("file", "pretrained", 1, "this discovery"),
        ("one_discovery", "once", 1, "this discovery and pretraining"),
        ("taught", "plain", 1, "this teacher"),
        ("taught_by_default", "plain", 1, "this teacher"),
        ("imagenet", "plain", 1, "this set of pretrained weights"),
        ("imagenet_repair", "imagenet", 1, "this set of pretrained weights"),
    ],
)
def test_a_verdict_over_one_pretraining_says_so(
    written, arm: str, baseline: str, pretrainings: int, limit: str
) -> None:
    runs = written(ARMS, [0.1], [0, 1, 2])
    (found,) = with_starts([row(arm, baseline)], runs.plan, runs.finals, runs.seeds)
    assert found["pretrainings"] == pretrainings
    assert found["verdict"] == (f"helps ({limit})" if limit else "helps") and bool(found["scope"]) == bool(limit)
    (undecided,) = with_starts([row(arm, baseline, "undecided")], runs.plan, runs.finals, runs.seeds)
    assert undecided["verdict"] == "undecided" and undecided["scope"] == found["scope"]


def test_arms_without_a_start_have_no_pretrainings(written) -> None:
    runs = written({"plain": ["finetune"], "other": {"stages": ["finetune"], "seed_offset": 9}}, [0.1], [0, 1])
    (found,) = with_starts([row("other", "plain")], runs.plan, runs.finals, runs.seeds)
    assert (found["pretrainings"], found["scope"], found["verdict"]) == (None, "", "helps")


def test_recipes_compared_from_the_same_pretraining_are_worded_so(written) -> None:
    runs = written(ARMS, [0.1], [0, 1])
    (found,) = with_starts([row("once_slow", "once", "hurts")], runs.plan, runs.finals, runs.seeds)
    assert found["verdict"] == "hurts (this pretraining)"
    assert found["scope"] == "both from one pretraining: does not say what they would give from another pretraining"


def test_one_seed_has_no_limit(written) -> None:
    runs = written(ARMS, [0.1], [0])
    (found,) = with_starts([row("once", "plain", "undecided")], runs.plan, runs.finals, runs.seeds)
    assert found["pretrainings"] == 1 and found["scope"] == ""


@pytest.mark.parametrize("stages", [["finetune"], ["pretrain", "finetune"]])
def test_a_fixed_seed_of_the_last_stage_is_refused(written, stages: list[str]) -> None:
    runs = written({"plain": ["finetune"], "same": {"stages": stages, "finetune": {"seed": 0}}}, [0.1], [0, 1])
    with pytest.raises(
        UserError, match="study arm same: the seed of its last stage, finetune, is fixed, so 2 seeds are one"
    ):
        check_seeds(runs.plan, runs.finals, runs.arms, runs.seeds)
    fine = written(ARMS, [0.1, 1.0], [0, 1])
    check_seeds(fine.plan, fine.finals, fine.arms, fine.seeds)


class Said:
    """What a run would log."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.say, self.warn = self.said.append, self.warned.append


def test_the_plan_warns_before_the_first_run(written) -> None:
    grid = {"grid": {"finetune.x": [1, 2]}}
    arms = {"plain": {"stages": ["finetune"]} | grid, "once": ONCE | grid, "imagenet": ARMS["imagenet"] | grid}
    runs, run = written(arms, [0.1, 1.0], [0, 1]), Said()
    first = plan_first_candidates(runs.plan, runs.arms, [0.1, 1.0], [0, 1])
    pairs = [("once", "plain"), ("imagenet", "plain")]  # one set of pretrained weights is meant: no warning
    scopes = planned_scopes(*first, pairs, [0.1, 1.0], [0, 1])
    assert scopes == {ONE: ["once - plain"]}
    report_plan(run, runs.plan, {"rows": [], "expected_std": 0.02}, 2, scopes)
    assert run.warned == [
        f"once - plain, {ONE}. All 2 seeds start from it. To judge the recipe, give each its own: remove `seed`, "
        "`init_from` or `selection` from the arm's stages."
    ]


def limited(scope: str = ONE) -> dict:
    """A study that helps and hurts on one pretraining, and is undecided otherwise."""
    record = study({"labels": 0.0, "better": 0.3, "worse": -0.3, "copy": 0.0}, fractions=(0.1,))
    for one in record["comparisons"][:2]:
        one |= {"verdict": f"{one['verdict']} (this pretraining)", "scope": scope, "pretrainings": 1}
    return record


def test_sentences_say_it() -> None:
    better, worse, copy = limited()["comparisons"]
    found = verdict_sentence(better, POINTS, 3)
    assert found.verdict == "helps" and found.text.endswith(f"above labels: helps (this pretraining); {ONE}")
    assert "below labels: hurts (this pretraining)" in verdict_sentence(worse, POINTS, 3).text
    counts = "Of 3 comparisons, 1 helps, 1 hurts and 1 is undecided"
    assert headline([better, worse, copy]) == f"{counts}; 2 verdicts are only about this pretraining."
    assert headline([better, copy]) == (
        "Of 2 comparisons, 1 helps, 0 hurt and 1 is undecided; 1 verdict is only about this pretraining."
    )
    assert headline([better]) == "In the one comparison, it helps (this pretraining)."
    assert summaries([better])[0].endswith(f"none undecided; {ONE}.")


def test_the_report_says_it(tmp_path) -> None:
    record = limited()
    write_report(record, tmp_path)
    text, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    for shown in (text, page):
        assert shown.count(ONE) >= 4  # a sentence and a summary for each of two
        assert "the interval lacks the variation between pretrainings" in shown
    assert '<span class="verdict helps">helps (this pretraining)</span>' in page
    assert "(over one pretraining)" in text  # in the figure's text
    table = (tmp_path / "tables" / "comparisons.csv").read_text()
    assert "pretrainings,scope" in table and ONE in table


def test_a_seed_in_the_options_of_all_arms_is_named() -> None:
    (text,) = option_warnings({"discover": {"seed": 0}, "pretrain": {"optim": {"steps": 3}}, "joint": None})
    assert text.startswith("study.options.discover.seed has no effect") and "{discover: {seed: 0}}" in text


def test_published_weights_and_teachers_are_named_and_give_no_advice(written) -> None:
    runs = written(ARMS, [0.1], [0, 1])
    pairs = [("imagenet_repair", "plain"), ("taught", "plain"), ("imagenet_repair", "imagenet")]
    found = with_starts([row(*pair) for pair in pairs], runs.plan, runs.finals, runs.seeds)
    assert [one["scope"] for one in found] == [
        "over one set of pretrained weights behind all seeds: does not say what another would give",
        "over one teacher behind all seeds: does not say what another would give",
        "both from one set of pretrained weights behind all seeds: does not say what they would give from another",
    ]
    assert planned_scopes(runs.plan, runs.finals, pairs, [0.1], runs.seeds) == {}  # nobody can give each seed its own


def test_the_weights_of_a_later_stage_are_those_of_the_one_before(written) -> None:
    runs = written(ARMS, [0.1], [0])
    (key,) = runs.finals["imagenet_repair", 0.1, 0]
    last = runs.plan.nodes[key]
    assert last.options["backbone"]["name"] == "lite0" and published_weights(last) == ""
    assert published_weights(runs.plan.nodes[last.start]) == "lite0"
