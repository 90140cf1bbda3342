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
    assert "by source" in text and text.count("grid_mask") == 3


def test_an_older_run_does_not_claim_learning() -> None:
    older = {"skill": {"grid_mask": score(0.2, 0.1)}, "skill_by_source": {"photos": {"grid_mask": score(0.2, 0.1)}}}
    text = result_text({"metrics": older})
    assert "does not show learning" in text and "+0.200" in text
