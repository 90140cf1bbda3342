"""Selections: weights by rule, the file, and their use as a preference."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from vision_mtl.core.errors import UserError
from vision_mtl.discovery.kinds import FLOOR
from vision_mtl.discovery.learning_curve import skill_over_time
from vision_mtl.discovery.measure import DamageErrors
from vision_mtl.discovery.preferring import prefer
from vision_mtl.discovery.selection import (
    Selection,
    controls,
    describe_instances,
    instance_weights,
    read_about,
    read_selection,
    select,
)
from vision_mtl.discovery.tables import build_tables
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.preference import mixture_shares

OPTIONS = {"grid_mask": {"grid": 2, "weight": 1.0}, "decolorise": {"weight": 1.0}}
PRETEXT = {name: PRETEXTS.get(name)(**options) for name, options in OPTIONS.items()}
COUNT, SCORED = 60, np.arange(0, 60, 2)
MEMBER = np.stack([np.arange(COUNT) < 40, np.arange(COUNT) >= 40], 1)  # sources a and b


@pytest.fixture
def pool(pool_of):
    random = np.random.default_rng(0)
    return pool_of(random.random((COUNT, 8, 8, 3)), {"shape": np.arange(COUNT) % 3}, member=MEMBER)


def errors_of(name: str, damages: list[str], gains: list[float]) -> DamageErrors:
    """Errors of a rule of 0.2, and of a network that lowers it by the share `gains[d]` in source a only."""
    random = np.random.default_rng(1)
    size = len(SCORED), len(damages)
    rule = 0.2 + random.normal(0, 0.01, size)
    model = rule * (1 - np.array(gains) * MEMBER[SCORED, :1]) + random.normal(0, 0.002, size)
    moments = np.zeros((*size, 3)), np.ones((*size, 3))
    shares = np.full(len(damages), 1 / len(damages))
    source = np.array(["planted/a", "planted/b"], object)[MEMBER[SCORED].argmax(1)]
    fold, start = SCORED % 4 // 2, rule + 0.1
    return DamageErrors(name, damages, shares, SCORED, source, fold, model, start, start, {"rule": rule}, *moments)


@pytest.fixture
def errors() -> list[DamageErrors]:
    cells = [f"2x2/r{k // 2}c{k % 2}" for k in range(4)]
    found = [errors_of("grid_mask", cells, [0.5, 0, 0, 0]), errors_of("decolorise", ["grey"], [-0.3])]
    found[0].rules["rule"][0, 0] = found[0].model[0, 0] = FLOOR / 2  # one instance with nothing to learn
    return found


@pytest.fixture
def instances(pool, errors) -> dict[str, np.ndarray]:
    return describe_instances(pool, errors, build_tables(pool, errors))


@pytest.fixture
def about(pool) -> dict:
    return {"image_size": [8, 8, 3], "sources": pool.sources, "pretexts": OPTIONS}


def test_instances_have_the_kind_of_their_source(instances: dict[str, np.ndarray], pool) -> None:
    assert len(instances["index"]) == len(SCORED) * 5 and set(instances["fold"]) == {"A", "B"}
    first = instances["damage"] == "2x2/r0c0"
    a = instances["source"] == "planted/a"
    assert set(instances["kind"][first & ~a]) == {"hopeless"}
    kinds = dict(zip(instances["index"][first & a], instances["kind"][first & a], strict=True))
    assert kinds.pop(0) == "trivial" and set(kinds.values()) == {"learnable"}
    assert instances["identity"][0] == pool.identities[instances["index"][0]]
    skill = 1 - instances["error_model"] / instances["error_reference"]
    np.testing.assert_allclose(instances["skill"], skill)


def test_weights_by_rule(instances: dict[str, np.ndarray]) -> None:
    learnable = instance_weights(instances, "learnable")
    assert learnable.sum() == 19  # of the 20 scored images of source a
    assert ((instance_weights(instances, "hopeless") + learnable) <= 1).all()
    top = instance_weights(instances, "top", top_ratio=0.1)
    assert top.sum() == 15 and instances["skill"][top > 0].min() >= np.sort(instances["skill"][learnable > 0])[4]
    assert instance_weights(instances, "top", top_ratio=1.0)[instances["skill"] <= 0].sum() == 0
    soft = instance_weights(instances, "soft")
    np.testing.assert_allclose(soft[learnable > 0], instances["skill"][learnable > 0], rtol=1e-6)
    progress = instance_weights(instances, "soft", by="progress")
    gained = (instances["error_untrained"] - instances["error_model"]) / instances["error_reference"]
    np.testing.assert_allclose(progress[learnable > 0], gained[learnable > 0].clip(0, 1), rtol=1e-6)
    with pytest.raises(UserError, match=r"discover\.top_ratio must lie in \(0, 1\]; found 0"):
        select(instances, {}, "top", top_ratio=0)


def test_sources_have_the_mean_of_their_images(instances, about) -> None:
    chosen = select(instances, about, "learnable")
    below = {name: values[~chosen.of_images] for name, values in chosen.columns.items()}
    assert len(below["index"]) == 2 * 5 and set(below["identity"]) == {""}
    place = (below["source"] == "planted/a") & (below["damage"] == "2x2/r0c0")
    assert below["weight"][place] == pytest.approx([0.95]) and below["weight"].sum() == pytest.approx(0.95)


def test_controls_are_the_hopeless_part_and_a_random_one_of_the_same_size(instances, about) -> None:
    chosen = select(instances, about, "learnable")
    found = controls(chosen)
    for name, control in found.items():
        assert control.about["rule"] == name
    weights = {name: control.columns["weight"][control.of_images] for name, control in found.items()}
    assert weights["random"].sum() == 19 and not np.array_equal(weights["random"], weights["hopeless"])
    assert (instances["kind"][weights["hopeless"] > 0] == "hopeless").all()


def test_a_selection_is_read_back_from_its_file(instances, about, tmp_path: Path) -> None:
    chosen = select(instances, about, "soft")
    chosen.write(tmp_path / "selection.parquet")
    again = read_selection(tmp_path / "selection.parquet")
    assert again.about == chosen.about and list(again.columns) == list(chosen.columns)
    for name, values in chosen.columns.items():
        np.testing.assert_array_equal(again.columns[name], values)
    table = pq.read_table(tmp_path / "selection.parquet")
    assert table["identity"].null_count == 10 and table.schema.field("weight").type == pa.float32()


def test_a_file_that_is_no_selection_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"weight": [1.0]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("weights")
    for name in ("other.parquet", "text.parquet", "none.parquet"):
        with pytest.raises(UserError, match=rf"--selection .*{name}' is no selection file"):
            read_about(tmp_path / name)


def test_a_preference_has_own_rows_for_scored_images_and_the_sources_for_others(instances, about, pool) -> None:
    found = prefer(select(instances, about, "learnable"), pool, PRETEXT, OPTIONS)
    assert found.table[found.row[2]].tolist() == [1, 0, 0, 0, 0]
    assert found.table[found.row[0]].tolist() == [0, 0, 0, 0, 0]
    assert found.table[found.row[1]].tolist() == pytest.approx([0.95, 0, 0, 0, 0])
    assert found.table[found.row[41]].tolist() == [0, 0, 0, 0, 0]
    weights = found.image_weights(mixture_shares(PRETEXT, (3, 8, 8)))
    assert weights[[0, 1, 2, 41]].tolist() == pytest.approx([0, 0.95 / 8, 1 / 8, 0])


def test_a_classification_pretext_is_selected_as_one_damage(pool, about) -> None:
    options = {"rotation": {"weight": 1.0}}
    table = build_tables(pool, found := [errors_of("rotation", ["all"], [0.5])])
    chosen = select(describe_instances(pool, found, table), {**about, "pretexts": options}, "learnable")
    preference = prefer(chosen, pool, {"rotation": PRETEXTS.get("rotation")()}, options)
    assert preference.table[preference.row[2]].tolist() == [1] * 4


def test_a_selection_that_does_not_fit_the_run_is_refused(instances, about, pool, pool_of) -> None:
    chosen = select(instances, about, "learnable")
    larger = pool_of(np.zeros((COUNT, 16, 16, 3)), member=MEMBER)
    fewer = pool_of(np.zeros((10, 8, 8, 3)))
    other = {"grid_mask": {"grid": 3, "weight": 1.0}}
    wrong = [
        (chosen, larger, OPTIONS, "made on images of 8 x 8 pixels in 3 channels; these are 16 x 16"),
        (chosen, fewer, OPTIONS, "made from other images: 25 of its 30 are not here.*first 'planted/a::0010'"),
        (chosen, pool, other, r"other damage: pretexts\.grid_mask\.grid was 2 there and is 3 here"),
        (chosen, pool, {"blur": {"weight": 1.0}}, r"other damage: pretexts\.blur"),
        (_empty(chosen), pool, OPTIONS, "leaves nothing to draw: none of its 160 rows has a weight above 0"),
    ]
    for selection, images, options, message in wrong:
        pretexts = {name: PRETEXTS.get(name)(**given) for name, given in options.items()}
        with pytest.raises(UserError, match=message):
            prefer(selection, images, pretexts, options)


def _empty(chosen: Selection) -> Selection:
    return Selection({**chosen.columns, "weight": np.zeros_like(chosen.columns["weight"])}, chosen.about)


def test_tables_have_groups_of_every_kind(pool, errors) -> None:
    tables = build_tables(pool, errors)
    assert {kind for kind, _ in tables.damages} == {"all", "source", "class"}
    metrics = tables.metrics()
    assert set(metrics["kinds_by_class"]["shape"]) == {"class0", "class1", "class2"}
    assert metrics["kinds_by_source"]["planted/a"]["grid_mask"]["2x2/r0c0"]["kind"] == "learnable"
    assert metrics["kinds_by_source"]["planted/b"]["grid_mask"]["2x2/r0c0"]["kind"] == "hopeless"
    assert metrics["skill_by_scale"]["grid_mask"].keys() == {"2x2"}
    assert metrics["skill"]["grid_mask"]["n"] == len(SCORED) and metrics["skill"]["decolorise"]["value"] < 0
    levels = [(row["images"], row["level"]) for row in tables.rows()]
    assert levels.count(("all", "damage")) == 5 and levels.count(("source", "pretext")) == 4


def test_skill_over_time_by_hand(errors) -> None:
    own = errors[1]
    own.rules["rule"][:] = 0.2
    scored = [torch.tensor([0, 2]), torch.tensor([4])]
    records = [
        [{"errors": {"decolorise": {"grey": 0.3}}, "images_seen": 10, "seconds": 1.0}],
        [{"errors": {"decolorise": {"grey": 0.15}}, "images_seen": 20, "seconds": 3.0}],
    ]
    (row,) = skill_over_time(records, scored, [own])
    assert row == {
        "pretext": "decolorise",
        "scale": "grey",
        "images_seen": 15,
        "seconds": 2,
        "skill": pytest.approx(1 - 0.45 / 0.6),
    }
