"""Running out of memory: told from other errors, and said in words that help. Imports nothing heavy."""

from __future__ import annotations

from vision_mtl.core.errors import UserError

# how PyTorch's allocators, C++ and oneDNN say it where the exception has no class of its own
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "bad allocation")
SIGNS += ("could not create a primitive", "could not create a memory object")


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
