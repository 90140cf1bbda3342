"""A skill without an interval names the source, its clusters and what to do."""

from vision_mtl.recipes.result_text import result_text


def test_a_skill_of_few_clusters_says_what_to_do() -> None:
    few = {"value": 0.1, "low": None, "high": None, "n": 900, "num_clusters": 2}
    many = few | {"low": 0.0, "high": 0.2, "num_clusters": 40}
    metrics = {"skill_by_source": {"bundled/photos": {"blur": few}, "images/x": {"blur": many}}, "skill": {"blur": few}}
    (line,) = [line for line in result_text({"metrics": metrics}).splitlines() if line.startswith("no interval")]
    assert "bundled/photos (2)" in line and "images/x" not in line and "--data.unlabelled" in line
    metrics["skill_by_source"]["bundled/photos"]["blur"] = many
    assert "no interval" not in result_text({"metrics": metrics})


def test_an_interval_that_is_missing_for_another_reason_is_not_explained_by_clusters() -> None:
    no_error = {"value": 0.0, "low": None, "high": None, "n": 900, "num_clusters": 40}
    assert "no interval" not in result_text({"metrics": {"skill_by_source": {"images/x": {"blur": no_error}}}})
