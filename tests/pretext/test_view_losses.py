"""The losses of views against loops over the papers' equations, and their values at chance and at the optimum."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from vision_mtl.core.rng import Keys
from vision_mtl.pretext.contrast import Contrast
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.pretext.view_losses import coding_rate, vicreg

CRITERIA = ("nt_xent", "vicreg", "coding_rate")


def numbered(images: int, views: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) the image and the number of each view."""
    return torch.arange(images).repeat_interleave(views), torch.arange(views).repeat(images)


def loss_of(criterion: str, embeddings: torch.Tensor, views: int, **options: object) -> torch.Tensor:
    image, view = numbered(len(embeddings) // views, views)
    pretext = Contrast(criterion=criterion, views=views, **options)
    return pretext.loss(embeddings, torch.zeros(len(embeddings), 3, 8, 8), {"image": image, "view": view})


def emp_ssl(z: np.ndarray) -> float:
    """-(mean rate) - 200 (mean cosine to the mean view), of unit vectors (V, b, K)."""
    views, batch, width = z.shape
    rates = [0.5 * np.linalg.slogdet(np.eye(width) + width / (batch * 0.2) * own.T @ own)[1] for own in z]
    mean = z.mean(0)
    cosines = [
        z[v, i] @ mean[i] / np.linalg.norm(z[v, i]) / np.linalg.norm(mean[i])
        for v in range(views)
        for i in range(batch)
    ]
    return -np.mean(rates) - 200 * np.mean(cosines)


@pytest.mark.parametrize(("images", "views", "width"), [(6, 2, 4), (3, 4, 8), (5, 3, 5)])
def test_coding_rate_is_emp_ssl_from_its_least_value_to_that_of_equal_embeddings(
    images: int, views: int, width: int
) -> None:
    torch.manual_seed(0)
    z = torch.randn(images * views, width)
    unit = torch.nn.functional.normalize(z.double(), dim=1).view(images, views, width).transpose(0, 1).numpy()
    rank = min(images, width)
    least = -0.5 * rank * math.log(1 + width / (0.2 * rank)) - 200
    equal = emp_ssl(np.broadcast_to(unit[:1, :1], unit.shape))
    expected = (emp_ssl(unit) - least) / (equal - least)
    assert loss_of("coding_rate", z, views).mean().item() == pytest.approx(expected, rel=1e-4)


def vicreg_of_pair(a: np.ndarray, b: np.ndarray) -> float:
    """25 (invariance) + 25 (mean of the variance terms) + 1 (sum of the covariance terms), of views (b, K)."""
    spread, off = 0.0, 0.0
    for z in (a, b):
        covariance = np.cov(z.T)
        spread += np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)).mean() / 2
        off += (covariance**2)[~np.eye(len(covariance), dtype=bool)].sum() / len(covariance)
    return 25 * ((a - b) ** 2).mean() + 25 * spread + off


@pytest.mark.parametrize(("images", "views", "width"), [(6, 2, 4), (3, 4, 8)])
def test_vicreg_is_the_mean_over_pairs_of_views_over_the_value_of_equal_embeddings(
    images: int, views: int, width: int
) -> None:
    torch.manual_seed(0)
    z = torch.randn(images * views, width) * 0.5 + 3
    own = z.double().view(images, views, width).transpose(0, 1).numpy()
    pairs = [vicreg_of_pair(own[a], own[b]) for a in range(views) for b in range(a)]
    assert loss_of("vicreg", z, views).mean().item() == pytest.approx(np.mean(pairs) / (25 * 0.99), rel=1e-4)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("views", [2, 5])
def test_equal_embeddings_have_loss_1(criterion: str, views: int) -> None:
    equal = torch.tensor([[0.3, -2.0, 1.0]]).expand(4 * views, 3)
    torch.testing.assert_close(loss_of(criterion, equal, views), torch.ones(4 * views), atol=1e-4, rtol=0)


def test_the_best_embeddings_have_loss_0() -> None:
    corners = torch.from_numpy(hadamard(8)).float()[:, 1:]  # (8, 7): deviation above 1, no covariance
    assert loss_of("vicreg", corners.repeat_interleave(3, 0), 3).abs().max() < 1e-5
    several = torch.eye(4).repeat(2, 1)  # 8 images, twice in each direction
    for z in (several, torch.eye(4), torch.eye(4)[:3]):  # more images than the width, as many, fewer
        assert loss_of("coding_rate", z.repeat_interleave(2, 0) * 5, 2).abs().max() < 1e-5


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_view_keeps_its_loss_in_any_order(criterion: str) -> None:
    torch.manual_seed(0)
    z, (image, view), order = torch.randn(12, 6), numbered(4, 3), torch.randperm(12)
    loss = Contrast(criterion=criterion, views=3).loss
    found = loss(z[order], torch.zeros(12, 3, 8, 8), {"image": image[order], "view": view[order]})
    torch.testing.assert_close(found, loss_of(criterion, z, 3)[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_one_image_teaches_nothing(criterion: str) -> None:
    z = torch.randn(3, 6, requires_grad=True)
    loss = loss_of(criterion, z, 3)
    loss.sum().backward()
    assert torch.equal(loss, torch.zeros(3)) and torch.equal(z.grad, torch.zeros(3, 6))


@pytest.mark.parametrize("statistic", [vicreg, coding_rate])
def test_a_number_of_view_that_one_image_has_is_left_out(statistic) -> None:
    image, view = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 0, 1, 2])
    z = torch.randn(5, 4, requires_grad=True)
    loss = statistic(z, image, view, 3)
    loss.sum().backward()
    assert loss[4] == 0 and bool((loss[:4] > 0).all()) and bool(z.grad.isfinite().all())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_autocast_changes_nothing(criterion: str) -> None:
    torch.manual_seed(0)
    z = torch.randn(24, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_of(criterion, z.bfloat16(), 4)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss_of(criterion, z.bfloat16().float(), 4), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_gradient_steps_on_embeddings_reach_a_low_loss(criterion: str) -> None:
    torch.manual_seed(0)
    z = (torch.ones(24, 8) + 0.1 * torch.randn(24, 8)).requires_grad_()
    optimiser = torch.optim.Adam([z], lr=0.1)
    for _ in range(150):
        loss = loss_of(criterion, z, 3).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1


def test_views_are_numbered_in_a_mixture() -> None:
    mixture, keys = Mixture({"contrast": Contrast(views=3, criterion="vicreg")}), Keys(0, 0, torch.arange(4))
    part, _ = mixture.prepare_all("contrast", torch.rand(4, 3, 16, 16), keys)
    assert part.draw["view"].tolist() == [0, 1, 2] * 4
