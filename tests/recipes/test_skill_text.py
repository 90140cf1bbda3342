"""The printed table of skill: what is learned, and runs from before `skill_learned`."""

from vision_mtl.recipes.result_text import result_text


def score(value: float, low: float | None, **more: object) -> dict[str, object]:
    high = None if low is None else 2 * value - low
    return {"value": value, "low": low, "high": high, "n": 40, "num_clusters": 4 if low is None else 40, **more}


def test_each_pretext_says_whether_it_is_learned() -> None:
    learned = {
        "grid_mask": score(0.2, 0.1, learned=True, reference="linear"),
        "blur": score(-0.1, -0.2, learned=False, reference="unsharp_masking"),
        "chain": score(0.3, None, learned=False, reference="start"),
    }
    classic = {name: score(0.5, 0.4) for name in learned}
    metrics = {"skill_learned": learned, "skill_learned_by_source": {"photos": learned}}
    text = result_text({"metrics": metrics | {"skill": classic, "skill_by_source": {"photos": classic}}})
    rows = {line.split()[1]: line for line in text.splitlines() if line.strip().startswith("photos")}
    assert "+0.200 (+0.100 to +0.300) learned linear" in " ".join(rows["grid_mask"].split())
    assert "not learned" in rows["blur"] and "too few clusters" in rows["chain"]
    assert all("+0.500" in row for row in rows.values()) and "against the classic repair alone" in text


def test_of_several_sources_the_whole_names_no_single_rule() -> None:
    whole = {"grid_mask": score(0.2, 0.1, learned=True, reference={"a": "linear", "b": "start"})}
    one = {"grid_mask": score(0.2, 0.1, learned=True, reference="linear")}
    metrics = {"skill_learned": whole, "skill_learned_by_source": {"a": one, "b": one}}
    text = result_text({"metrics": metrics | {"skill": one, "skill_by_source": {"a": one, "b": one}}})
    rows = [line for line in text.splitlines() if line.split()[1:2] == ["grid_mask"]]
    assert "by source" in text and len(rows) == 3 and "grid_mask of all images" in text


def test_an_older_run_does_not_claim_learning() -> None:
    older = {"skill": {"grid_mask": score(0.2, 0.1)}, "skill_by_source": {"photos": {"grid_mask": score(0.2, 0.1)}}}
    text = result_text({"metrics": older})
    assert "does not show learning" in text and "+0.200" in text


def test_sources_have_their_tasks_names_or_short_paths() -> None:
    one = {"grid_mask": score(0.2, 0.1, learned=True, reference="linear")}
    paths = [f"images//home/me/long/{name}/photos" for name in ("a", "b")]
    by_source = {"folder//home/me/pets": one, **dict.fromkeys(paths, one)}
    metrics = {"skill_learned": one, "skill_learned_by_source": by_source, "skill": one, "skill_by_source": by_source}
    text = result_text({"metrics": metrics}, {"cats": "folder//home/me/pets"})
    named = [line.split()[0] for line in text.splitlines() if line.split()[1:2] == ["grid_mask"]]
    assert named == ["cats", "a/photos", "b/photos", "all"]
    assert "/home/me" not in text
    same = {"images//x/a/p": one, "images//y/a/p": one}
    shown = result_text({"metrics": metrics | {"skill_learned_by_source": same, "skill_by_source": same}})
    assert "x/a/p " in shown and "y/a/p " in shown, "as many folders as they need to differ"


def test_the_majority_stands_beside_each_tasks_score() -> None:
    row = {"kind": "single_label", "accuracy": score(0.6, 0.5), "majority": {"accuracy": score(0.4, 0.3)}}
    row |= {"chance": {"accuracy": score(0.3, 0.2)}, "num_labelled": 10, "num_validation": 4}
    tasks = {"pets": row | {"minus_majority": score(0.2, 0.1)}, "cars": row | {"minus_majority": score(0.1, -0.1)}}
    lines = result_text(
        {"metrics": {"tasks": tasks, "old_tasks": {"digits": row | {"num_labelled": None}}}}
    ).splitlines()
    assert lines[1].split() == ["task", "metric", "labels", "score", "majority", "chance"]
    assert lines[3].split()[-2:] == ["0.400", "0.300"] and lines[5].split()[0] == "digits"
    assert "better than the majority: pets; not shown: cars" in lines
    older = {"tasks": {"pets": {"kind": "single_label", "accuracy": score(0.6, 0.5), "num_labelled": 10}}}
    assert "majority" not in result_text({"metrics": older})


def test_an_impossible_detectable_difference_is_not_printed() -> None:
    names = {"task": "pets", "fraction": 0.1, "arm": "a", "baseline": "b", "verdict": "undecided"}
    row = names | {"difference": score(0.1, -0.9), "arm_score": score(0.6, 0.1), "baseline_score": score(0.5, 0.1)}
    text = result_text({"metrics": {"comparisons": [row | {"minimum_detectable": 1.34}]}})
    assert "1.34" not in text and "none: no difference can be shown with this design" in text
    assert "0.400" in result_text({"metrics": {"comparisons": [row | {"minimum_detectable": 0.4}]}})
