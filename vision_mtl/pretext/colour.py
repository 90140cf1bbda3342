"""Grey images, Lab colours and the quantised colours of Zhang et al. (2016)."""
# B images, H W pixels, Q colour bins

from functools import lru_cache

import torch
from torch import Tensor

from vision_mtl.core.device_transfer import constant, table

LUMA = (0.299, 0.587, 0.114)  # ITU-R Rec. 601
AB_RANGE = 110.0  # a and b of sRGB lie in about [-110, 110]
BIN_WIDTH = 10.0  # ab units; Zhang et al. 2016, sec. 2.2
PRIOR_CHROMA = 12.0  # ab units: mean chroma of photographs' pixels (11 to 14 on the packaged ones)
UNIFORM_SHARE = 0.5  # lambda of Zhang et al., eq. 4
WHITE = (0.95047, 1.0, 1.08883)  # D65
XYZ_OF_RGB = (  # linear sRGB to CIE XYZ
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
RGB_OF_XYZ = (  # its inverse, with kornia's digits
    (3.2404813432005266, -1.5371515162713185, -0.4985363261688878),
    (-0.9692549499965682, 1.8759900014898907, 0.0415559265582928),
    (0.0556466391351772, -0.2040413383665112, 1.0573110696453443),
)
SRGB_END, LAB_END = 0.04045, 0.008856  # upper ends of the linear parts of the sRGB and Lab curves
CURVE_END, LINEAR_END = 0.2068966, 0.0031308  # lower ends of the inverse curves' power parts
LAB_SLOPE = 7.787  # of Lab's linear part
CHUNK = 16  # images at a time, so that they fit the processor's cache
TEMPERATURE = 0.38  # annealing of the decoded mean; Zhang et al., eq. 5


def rgb_to_lab(images: Tensor) -> Tensor:
    """Return RGB images (B, 3, H, W) in [0, 1] as CIE Lab."""
    from kornia import color  # late: kornia takes a second to import, and `--help` needs the options alone

    return color.rgb_to_lab(images)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Return CIE Lab (B, 3, H, W) as RGB images in [0, 1]."""
    from kornia import color  # late, as above

    return color.lab_to_rgb(lab)


def luma(images: Tensor) -> Tensor:
    """RGB (B, 3, H, W) -> (B, 1, H, W), Rec. 601 weights."""
    red, green, blue = images.split(1, dim=1)
    # writes one channel instead of three: at 224 pixels allocating memory dominates
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def lightness(images: Tensor) -> Tensor:
    """RGB in [0, 1] -> CIE L (B, 1, H, W) in [0, 100]."""
    return rgb_to_lab(images)[:, :1]


def grey_of_lightness(light: Tensor) -> Tensor:
    """(B, 1, H, W) in [0, 100] -> (B, 3, H, W): the grey RGB image of that lightness."""
    return lab_to_rgb(torch.cat((light, torch.zeros_like(light), torch.zeros_like(light)), dim=1))


def chroma_ab(images: Tensor) -> Tensor:
    """RGB in [0, 1] -> (B, 2, H, W): a and b of Lab in units of 110, about [-1, 1].

    Equals kornia to 1e-5 and is faster on a CPU: it skips lightness, computes powers by logarithms, and
    adds the linear part of each curve to the clipped power instead of selecting between the two.
    """
    found = images.new_empty(len(images), 2, *images.shape[2:])
    matrix, white = (constant(v, images.device, images.dtype) for v in (XYZ_OF_RGB, WHITE))
    matrix = matrix / white[:, None]
    for rgb, ab in zip(images.split(CHUNK), found.split(CHUNK), strict=True):
        light = _power(rgb.clamp(min=SRGB_END).add_(0.055).mul_(1 / 1.055), 2.4)
        light.add_(rgb.clamp(max=SRGB_END).sub_(SRGB_END), alpha=1 / 12.92)
        xyz = (matrix @ light.flatten(2)).view_as(rgb)
        curve = _power(xyz.clamp(min=LAB_END), 1 / 3)
        curve.add_(xyz.clamp_(max=LAB_END).sub_(LAB_END), alpha=LAB_SLOPE)
        torch.sub(curve[:, 0], curve[:, 1], out=ab[:, 0]).mul_(500 / AB_RANGE)
        torch.sub(curve[:, 1], curve[:, 2], out=ab[:, 1]).mul_(200 / AB_RANGE)
    return found


def _power(values: Tensor, exponent: float) -> Tensor:
    """Raise `values`, all above 0, to a power, in place."""
    return values.log2_().mul_(exponent).exp2_()


def with_chroma(light: Tensor, ab: Tensor) -> Tensor:
    """Lightness (B, 1, H, W) and chroma (B, 2, H, W) in units of 110 -> RGB, clipped to [0, 1].

    Equals kornia to 1e-5 and is faster on a CPU, for the reasons given at `chroma_ab`. Kornia computes it where
    gradients are needed.
    """
    if torch.is_grad_enabled() and (light.requires_grad or ab.requires_grad):
        return lab_to_rgb(torch.cat((light, ab * AB_RANGE), dim=1)).clamp(0, 1)
    found = light.new_empty(len(light), 3, *light.shape[2:])
    of_xyz, white = (constant(v, light.device, light.dtype) for v in (RGB_OF_XYZ, WHITE))
    matrix = of_xyz * white  # columns: the white point scales X, Y and Z
    for lightness_part, ab_part, rgb in zip(light.split(CHUNK), ab.split(CHUNK), found.split(CHUNK), strict=True):
        curve = torch.empty_like(rgb)  # f(X), f(Y), f(Z)
        curve[:, 1] = lightness_part[:, 0].add(16).mul_(1 / 116)
        torch.add(curve[:, 1], ab_part[:, 0], alpha=AB_RANGE / 500, out=curve[:, 0])
        torch.sub(curve[:, 1], ab_part[:, 1], alpha=AB_RANGE / 200, out=curve[:, 2])
        curve[:, 2].clamp_(min=0)  # as kornia does
        xyz = curve.clamp(min=CURVE_END).pow_(3)
        xyz.add_(curve.clamp_(max=CURVE_END).sub_(CURVE_END), alpha=1 / LAB_SLOPE)
        linear = (matrix @ xyz.flatten(2)).view_as(rgb).clamp_(0, 1)
        torch.mul(_power(linear.clamp(min=LINEAR_END), 1 / 2.4), 1.055, out=rgb)
        rgb.sub_(0.055).add_(linear.clamp_(max=LINEAR_END).sub_(LINEAR_END), alpha=12.92).clamp_(0, 1)
    return found


@lru_cache
def bin_centres() -> Tensor:
    """(Q, 2) ab of the 261 bins that hold an sRGB colour, found by sweeping the RGB cube; `decolorise.py` tells why the
    313 of Zhang et al. are more."""
    steps = torch.linspace(0, 1, 65)
    cube = torch.cartesian_prod(steps, steps, steps)  # (n, 3)
    ab = rgb_to_lab(cube[:, :, None, None])[:, 1:, 0, 0]
    return (ab / BIN_WIDTH).round().unique(dim=0) * BIN_WIDTH


def nearest_bin(images: Tensor) -> Tensor:
    """RGB -> (B, H, W) int64: the colour bin of each pixel."""
    ab = (rgb_to_lab(images)[:, 1:] / BIN_WIDTH).round().long() + _OFFSET  # (B, 2, H, W)
    ab = ab.clamp(0, 2 * _OFFSET)
    return table(_bin_table, (), images.device, torch.int64)[ab[:, 0], ab[:, 1]]


def bin_weights() -> Tensor:
    """(Q,) class weights, eq. 4 of Zhang et al., with mean 1 under the prior.

    Differs from the paper: the prior is exponential in chroma instead of counted on ImageNet, so it needs no images.
    """
    prior = torch.softmax(-bin_centres().norm(dim=1) / PRIOR_CHROMA, dim=0)
    weights = 1.0 / ((1 - UNIFORM_SHARE) * prior + UNIFORM_SHARE / len(prior))
    return weights / (prior * weights).sum()


def annealed_mean(logits: Tensor) -> Tensor:
    """(B, Q, H, W) -> chroma (B, 2, H, W) in units of 110; eq. 5 of Zhang et al."""
    shares = torch.softmax(logits / TEMPERATURE, dim=1)
    return torch.einsum("bqhw,qc->bchw", shares, table(bin_centres, (), logits.device, logits.dtype) / AB_RANGE)


_OFFSET = 12  # bins on either side of grey: 120 / BIN_WIDTH covers every sRGB colour


@lru_cache
def _bin_table() -> Tensor:
    """(2 * _OFFSET + 1, 2 * _OFFSET + 1) int64: the bin of rounded a and b; outside the gamut, the nearest bin."""
    axis = (torch.arange(2 * _OFFSET + 1) - _OFFSET) * BIN_WIDTH
    return torch.cdist(torch.cartesian_prod(axis, axis), bin_centres()).argmin(1).view(len(axis), len(axis))
