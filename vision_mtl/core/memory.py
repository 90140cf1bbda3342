"""Memory: detects and explains out-of-memory errors, and sets whether the C library keeps freed memory.

Imports nothing heavy.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vision_mtl.core.errors import UserError

# out-of-memory messages of PyTorch's allocators, C++ and oneDNN, for exceptions without a class of their own
OUT_OF_MEMORY_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "could not create a primitive",
    "could not create a memory object",
)
# glibc's mallopt: the largest number of blocks outside of the heap, and the free bytes kept at the heap's end
MMAP_MAX, TRIM_THRESHOLD = -4, -1
SYSTEM_MMAP_MAX, SYSTEM_TRIM_BYTES = 65536, 1 << 26  # glibc's default, and the largest value it sets by itself
KEPT_BYTES = 2**31 - 1


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an out-of-memory error of the CPU or a GPU."""
    name, text = type(error).__name__, str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (name == "OutOfMemoryError" or any(message in text for message in OUT_OF_MEMORY_MESSAGES))
    )


def out_of_memory(where: str, fits: str = "") -> UserError:
    """Return the error to show; `fits` replaces the general advice by an option that was measured to fit."""
    remedy = "Lower --image_size, take a smaller --backbone.name, or free memory and run the same command again."
    return UserError(f"out of memory {where}. {fits or remedy}")


_keeps = False  # whether the C library was told to keep freed memory


def keep_freed_memory(keep: bool) -> bool:
    """Let the C library keep freed memory for reuse (True) or return it to the system (False).

    Returns False where the C library cannot be set; only glibc (Linux) can. Without reuse, each new large block costs
    a page fault for every 4 KiB.
    """
    if not can_keep_freed_memory():
        return False
    global _keeps
    _keeps, mallopt = keep, ctypes.CDLL(None).mallopt
    most, trim = (0, KEPT_BYTES) if keep else (SYSTEM_MMAP_MAX, SYSTEM_TRIM_BYTES)
    return bool(mallopt(MMAP_MAX, most)) and bool(mallopt(TRIM_THRESHOLD, trim))


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for reuse in the block, for work on many large blocks; return it to the system at the end."""
    before = _keeps
    keep_freed_memory(True)
    try:
        yield
    finally:
        keep_freed_memory(before)
        if not before:
            hand_back_freed_memory()


def hand_back_freed_memory() -> None:
    """Return freed memory to the system where the C library can (glibc): after training, before the next large use."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def can_keep_freed_memory() -> bool:
    """Return True if the C library has `mallopt` (glibc)."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")
