"""Memory that has run out: how it is known, and what to tell of it."""

from __future__ import annotations

from genrec.contracts import GenrecError

_SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED")
_LENGTH = 160  # of what an allocator says


class ShortOfMemoryError(GenrecError):
    """Memory is too small for what was asked for; the message says what fits, where that is known."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory is short: torch has one of its own for GPUs and words for the processor."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def shortage(error: BaseException) -> ShortOfMemoryError:
    """A sentence for memory that ran out where no batch is known to be too large."""
    return ShortOfMemoryError(
        f"Memory ran out ({what_allocator_said(error)}). Give the machine more, or make the model, the data or "
        "trainer.eval_batch_size smaller; python -m genrec.doctor with the same words estimates what is needed."
    )


def what_allocator_said(error: BaseException) -> str:
    """The first line of the allocator's message, without what the library says of itself."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return line.rpartition("DefaultCPUAllocator: ")[2][:_LENGTH].rstrip(". ")
