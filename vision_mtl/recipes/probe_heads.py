"""The probe as a model: the frozen backbone with a linear head per task, to predict with or to export.

A head is a linear probe of the features that a head of this project reads: the last map, averaged and normalised.
Starting `finetune` from it is linear probing before fine-tuning (Kumar et al., "Fine-tuning can distort pretrained
features and underperform out-of-distribution", 2022, https://arxiv.org/abs/2202.10054).
"""
# N rows of features, D feature width, K classes or labels

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.run import Run
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.pool import Pool
from vision_mtl.evaluation.calibration import fit_temperature
from vision_mtl.evaluation.linear_probe import LinearProbe, feature_statistics, standardise
from vision_mtl.evaluation.probing import ProbePrediction, ProbeTask, fit_probe
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import SharedModel
from vision_mtl.recipes.build import describe_model
from vision_mtl.training.checkpoint import BEST, save_weights
from vision_mtl.training.supervised import task_head_specs

DECODER = "linear"  # unused: classes and numbers are predicted without a decoder
MAX_LOGIT = 1e4  # instead of infinity, for a class in no training image, or a label in all of them


def fit_heads(
    run: Run, config: RunConfig, pool: Pool, backbone: Backbone, tasks: Mapping[str, ProbeTask], features: Tensor
) -> dict[str, ProbePrediction]:
    """Fit a head per task on all training labels, save the model, and return each head's test predictions.

    `features` (N, D) are the last map of `backbone`, averaged, with the rows of `tasks`. The model goes to
    `checkpoints/best.safetensors`.
    """
    normalised = F.layer_norm(features.float(), features.shape[1:]).numpy()
    specs = task_head_specs({name: pool.targets[name] for name in tasks})
    maps = MapSpec(backbone.channels, backbone.map_sizes, backbone.image_size)
    model = SharedModel(backbone, DECODERS.get(DECODER)().build(maps), {}, specs)
    found = {}
    for name, task in tasks.items():
        x = standardise(normalised, task.train)
        probe = fit_probe(x, task, task.train)
        head = model.task_head(name)
        _load_probe(head, probe, *feature_statistics(normalised, task.train), *pool.targets[name].unit)
        if label_kind(task.kind).has_classes:
            logits = torch.from_numpy(_logits(probe, x[task.val]))
            truth = torch.from_numpy(task.values[task.val])
            _tensor(head.temperature).fill_(fit_temperature(label_kind(task.kind), logits, truth))
        chosen = {"C": probe.strength, "val_score": probe.val_score, "converged": probe.converged}
        found[name] = ProbePrediction(probe.predict(x[task.test]), chosen)
    if run.is_main:
        described = describe_model(replace(config, decoder=DECODERS.get(DECODER)()), model, pool)
        save_weights(run.checkpoints / BEST, described | {"step": 0}, model.state_dict())
    return found


def _logits(probe: LinearProbe, x: np.ndarray) -> np.ndarray:
    return x @ probe.weight + np.clip(probe.bias, -MAX_LOGIT, MAX_LOGIT)


def _load_probe(
    head: nn.Module, probe: LinearProbe, mean: np.ndarray, deviation: np.ndarray, offset: float, scale: float
) -> None:
    """Give `head` the probe's weights, with the standardisation of the features folded into weight and bias.

    `offset` and `scale` are the unit in which a head of numbers predicts.
    """
    has_classes = label_kind(probe.kind).has_classes
    limited = np.clip(probe.bias, -MAX_LOGIT, MAX_LOGIT) if has_classes else (probe.bias - offset) / scale
    weight = (probe.weight if has_classes else probe.weight / scale) / deviation[:, None]  # (D, K)
    bias = limited - mean @ weight
    project = head.project
    assert isinstance(project, nn.Linear)
    with torch.no_grad():
        project.weight.copy_(torch.from_numpy(weight.T))
        project.bias.copy_(torch.from_numpy(bias))


def _tensor(value: Tensor | nn.Module) -> Tensor:
    assert isinstance(value, Tensor)
    return value
