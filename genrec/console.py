"""How a command of genrec ends: with an exit code, and a sentence for whatever a person can mend."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from genrec.contracts import GenrecError, LostProcessError
from genrec.disk import StorageError, refusal
from genrec.memory import out_of_memory, shortage


def command(name: str, work: Callable[[], int | None]) -> None:
    """Does the work of the console entry ``name`` and ends the process with the code that it returns.

    A mistake of the user is a sentence and 2; a full disk or memory or a lost process a sentence and 1; Ctrl-C 130.
    A reader such as head that has seen enough is no fault of anybody: 141, as the shell says of it.
    """
    try:
        code = work()
        sys.stdout.flush()
    except GenrecError as error:
        _end(name, error, 1 if isinstance(error, StorageError | LostProcessError) else 2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # nor may the interpreter complain at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        told = sentence_of(error)
        if told is None:
            raise
        _end(name, told, 1)
    else:
        if code:
            sys.exit(code)


def sentence_of(error: Exception) -> GenrecError | None:
    """What to tell of an error that says nothing of what to do: of files, of memory; None for a fault in the code."""
    if isinstance(error, OSError) and error.filename is not None:
        return refusal(error, error.filename)
    return shortage(error) if out_of_memory(error) else None


def _end(name: str, error: Exception, code: int) -> None:
    leads = os.environ.get("RANK", "0") == "0"  # of processes that torchrun has started all would say the same
    if leads or isinstance(error, LostProcessError):
        sys.stderr.write(f"{name}: {error}\n")
    sys.exit(code)
