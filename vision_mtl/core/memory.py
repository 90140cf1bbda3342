"""Memory: running out of it, told from other errors and said in words that help; and whether freed memory is kept.

Imports nothing heavy.
"""

from __future__ import annotations

import ctypes
import sys

from vision_mtl.core.errors import UserError

# how PyTorch's allocators, C++ and oneDNN say it where the exception has no class of its own
SIGNS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "could not create a primitive",
    "could not create a memory object",
)
# glibc's mallopt: how many blocks may lie apart from the heap, and how much free memory stays at the heap's end
MMAP_MAX, TRIM_THRESHOLD = -4, -1
SYSTEM_MMAP_MAX, SYSTEM_TRIM_BYTES = 65536, 1 << 26  # its own first value, and the most that it grows to by itself
KEPT_BYTES = 2**31 - 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it means that memory was lacking, on the CPU or on a GPU."""
    name, text = type(error).__name__, str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and (name == "OutOfMemoryError" or any(sign in text for sign in SIGNS))
    )


def out_of_memory(where: str, fits: str = "") -> UserError:
    """The error to show; `fits` says which option would fit, where that was measured."""
    remedy = "Lower --image_size, take a smaller --backbone.name, or free memory and run the same command again."
    return UserError(f"out of memory {where}. {fits or remedy}")


def keep_freed_memory(keep: bool) -> bool:
    """Have the C library keep what is freed for the next use (True), or hand it back to the system; whether it can.

    A large block that is handed back costs a page fault for every 4 KiB when the next one is asked for. Only glibc
    (Linux) can be told.
    """
    if not can_keep_freed_memory():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    most, trim = (0, KEPT_BYTES) if keep else (SYSTEM_MMAP_MAX, SYSTEM_TRIM_BYTES)
    return bool(mallopt(MMAP_MAX, most)) and bool(mallopt(TRIM_THRESHOLD, trim))


def hand_back_freed_memory() -> None:
    """Give the system what is freed already and still kept in pieces, where the C library can (glibc): after training,
    before something else needs room."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def can_keep_freed_memory() -> bool:
    """Whether the C library is one that can be told to."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")
