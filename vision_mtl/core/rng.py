"""Counter-based random draws: the same image gets the same damage, whatever the batch, worker or device.

Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, sec. 3), in whole numbers of 64
bits, so that CPU and GPU agree to the bit. A draw depends on (seed, name, epoch, image index, instance, how many
numbers were taken before), and on nothing else: there is no state to save, and a resumed run replays exactly.

Differs from the paper: the 64-bit key is (seed, name) and the counter (block, index, epoch, instance), 32 bits each.
"""
# B images, n numbers an image

from __future__ import annotations

import math
import sys
import zlib
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vision_mtl.core.device_transfer import constant, send

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # from the paper, table 2
WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1, from the paper
ROUNDS = 10  # the paper's recommended safety margin; 7 already pass BigCrush
WORD = 0xFFFFFFFF
FACTORS = (MULTIPLIERS, MULTIPLIERS[::-1])  # of even and of odd rounds, see `_encrypted`
COLUMNS = tuple(np.array(pair, np.uint64)[:, None] for pair in FACTORS)
LOW, HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)  # where a number's halves lie in memory


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Encrypt counters: (4, ...) int64 holding 32-bit words -> (4, ...) int64 of 32 random bits each."""
    words = counter.reshape(4, -1)
    if counter.device.type == "cpu":
        found = torch.from_numpy(_encrypted_here(words.numpy().view(np.uint64), key))
    else:
        found = _encrypted(words, key)
    return found.view(counter.shape)


def _encrypted(words: Tensor, key: tuple[int, int]) -> Tensor:
    """The words (4, n), encrypted on any device.

    The two multiplications of a round are one, of rows 0 and 2. Its results change places, as the paper has it: here
    the rows stay, and what they are multiplied by changes places in every other round.
    """
    even, odd = words[0::2], words[1::2]  # (2, n) each
    factors, keys = (constant(values, words.device)[..., None] for values in (FACTORS, _round_keys(key)))
    for number in range(ROUNDS):
        product = even * factors[number % 2]  # int64 wraps; the 64 bits are right, read as unsigned
        even, odd = ((product >> 32) & WORD) ^ torch.flipud(odd) ^ keys[number], product & WORD
    return torch.stack((even[0], odd[0], even[1], odd[1]))


def _encrypted_here(words: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """The same on the CPU: uint64 words, int64 found.

    Of the few words of a batch NumPy needs a quarter of the time, as nothing is allocated, and a product's halves are
    read where they lie. Even rows are the low halves of `even`, odd ones those of the product before.
    """
    even, before = words[0::2].copy(), words[1::2].copy()
    product, keys = np.empty_like(even), _columns(key)
    rows, odd, halves = (array.view(np.uint32) for array in (even, before, product))
    rows = rows[:, LOW::2]
    for number in range(ROUNDS):
        np.multiply(even, COLUMNS[number % 2], out=product)
        np.bitwise_xor(halves[:, HIGH::2], odd[::-1, LOW::2], out=rows)
        np.bitwise_xor(rows, keys[number], out=rows)
        before, product, odd, halves = product, before, halves, odd
    found = np.empty(words.shape, np.int64)
    found[0::2], found[1::2] = rows, odd[:, LOW::2]
    return found


@lru_cache(maxsize=256)
def _columns(key: tuple[int, int]) -> np.ndarray:
    """(ROUNDS, 2, 1) uint32 the round keys, for NumPy."""
    return np.array(_round_keys(key), np.uint32)[..., None]


def _round_keys(key: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Each round's two words, those of rows 0 and 2."""
    pairs = [[(k + number * w) & WORD for k, w in zip(key, WEYL, strict=True)] for number in range(ROUNDS)]
    return tuple((k0, k1) if number % 2 else (k1, k0) for number, (k0, k1) in enumerate(pairs))


@dataclass
class Keys:
    """One stream of numbers for each of B images.

    `index` (B,) int64 are the images' indices in the pool, 0 <= index < 2**32; `epoch` is one number, or (B,) where a
    batch crosses from one epoch to the next; `instance` (B,) tells apart several instances of one image in one epoch.
    Each method call moves every stream on; `fold` starts another, named one.
    """

    seed: int
    epoch: int | Tensor
    index: Tensor
    instance: Tensor | None = None
    name: str = ""
    _taken: int = field(default=0, repr=False)  # blocks of four words used so far

    def __len__(self) -> int:
        return len(self.index)

    @property
    def device(self) -> torch.device:
        """Where the keys lie, and their draws."""
        return self.index.device

    def to(self, device: torch.device) -> Keys:
        """The same streams, from their start, on another device: their numbers are the same to the bit."""
        epoch = send(self.epoch, device) if isinstance(self.epoch, Tensor) else self.epoch
        instance = None if self.instance is None else send(self.instance, device)
        return replace(self, epoch=epoch, index=send(self.index, device), instance=instance, _taken=0)

    def fold(self, name: str) -> Keys:
        """An independent stream of the same images, for the purpose called `name`, from its start."""
        return replace(self, name=f"{self.name}/{name}", _taken=0)

    def shared_by_instances(self) -> Keys:
        """The stream that all instances of an image share, from its start (to draw without replacement)."""
        return replace(self, instance=None, _taken=0)

    def select(self, rows: Tensor | slice) -> Keys:
        """The streams of some of the images, from their start."""
        epoch = self.epoch[rows] if isinstance(self.epoch, Tensor) else self.epoch
        instance = None if self.instance is None else self.instance[rows]
        return replace(self, epoch=epoch, index=self.index[rows], instance=instance, _taken=0)

    def bits(self, n: int) -> Tensor:
        """(B, n) int64, 32 random bits each."""
        blocks = math.ceil(n / 4)
        counter = torch.empty(4, len(self), blocks, dtype=torch.int64, device=self.device)
        counter[0] = torch.arange(self._taken, self._taken + blocks, device=self.device)
        words = (self.index, self.epoch, 0 if self.instance is None else self.instance)
        for row, value in zip(counter[1:], words, strict=True):
            if isinstance(value, Tensor):
                row.copy_(value[:, None])
            else:
                row.fill_(value & WORD)
        self._taken += blocks
        key = ((self.seed ^ (self.seed >> 32)) & WORD, zlib.crc32(self.name.encode()))
        drawn = philox(counter, key)
        if n == 1:
            return drawn[0]  # no need to put the words in order
        return drawn.permute(1, 2, 0).flatten(1)[:, :n]

    def skip(self, n: int) -> None:
        """Move on as if `n` numbers had been drawn."""
        self._taken += math.ceil(n / 4)

    def uniform(self, n: int | None = None, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B,) or (B, n) float32 in [low, high); 24 random bits each, so exact in float32 on every device."""
        unit = (self.bits(n or 1) >> 8).float() * 2.0**-24
        return _squeeze(low + (high - low) * unit, n)

    def integers(self, upper: int | Tensor, n: int | None = None) -> Tensor:
        """(B,) or (B, n) int64 in [0, upper). `upper` may be (B,): a bound for each image. Bias below upper / 2**32."""
        bound = upper[:, None].long() if isinstance(upper, Tensor) else upper
        return _squeeze((self.bits(n or 1) * bound) >> 32, n)

    def permutation(self, n: int) -> Tensor:
        """(B, n) int64: the numbers 0 to n - 1 in random order, one order for each image."""
        bits = self.bits(n)
        return torch.argsort(bits * n + torch.arange(n, device=self.device), dim=1)  # ties broken by position

    def choice(self, weights: Tensor) -> Tensor:
        """(B,) int64: an entry of `weights` (K,), drawn in proportion to it; an entry of weight 0 is never drawn."""
        edges = weights.to(self.device, torch.float64).cumsum(0)
        point = self.uniform().double() * edges[-1]
        return torch.searchsorted(edges, point, right=True).clamp(max=int(weights.nonzero()[-1]))

    def normal(self, n: int) -> Tensor:
        """(B, n) float32, standard normal by Box-Muller (pixels may differ by 1e-6 between devices)."""
        half = math.ceil(n / 2)
        unit = 1.0 - self.uniform(half)  # (0, 1]: the logarithm is finite
        angle = self.uniform(half) * (2 * math.pi)
        radius = torch.sqrt(-2.0 * torch.log(unit))
        return torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1)[:, :n]


def _squeeze(values: Tensor, n: int | None) -> Tensor:
    return values[:, 0] if n is None else values
