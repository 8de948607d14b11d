"""Building the objects that a config describes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from genrec.config.faults import report
from genrec.config.targets import named_by_user, target_faults
from genrec.contracts import GenrecError


def instantiate(node: Any, **options: Any) -> Any:
    """As ``hydra.utils.instantiate`` of what a config may name (``genrec.config.targets``), all of it judged first.

    A mistake of the user that a constructor reports keeps its own words; what cannot be called with what it is given
    is told with the key of the node. A fault within a constructor stays what it is.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as build

    refuse_targets(node)
    try:
        return build(node, **options)
    except InstantiationException as error:
        causes = list(_causes(error))
        own = next((cause for cause in causes if isinstance(cause, GenrecError)), None)
        if own is not None:
            raise own from None
        if causes[-1] is not error and not _in_the_call(causes[-1]):
            raise
        raise GenrecError(_refusal(error, causes[-1])) from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _in_the_call(error: BaseException) -> bool:
    """Whether arguments did not fit a signature, so that nothing of the constructor itself has run."""
    trace = error.__traceback__
    return isinstance(error, TypeError) and trace is not None and trace.tb_next is None


def _refusal(error: Exception, cause: BaseException) -> str:
    """Hydra's words and those of the constructor, on one line."""
    head, _, key = str(error).partition("full_key: ")
    said = " ".join(head.split()) if cause is error else f"{' '.join(head.split(chr(10))[0].split())} {cause}"
    return f"{key.strip() or 'The config'}: {said.rstrip('.')}. --cfg job shows what was given."


def refuse_targets(node: Any) -> None:
    """Raises ``GenrecError`` for a node that names what a config may not run; the root of the node says what it may."""
    from omegaconf import DictConfig, OmegaConf

    plain, root = node, None
    if isinstance(node, DictConfig):
        plain, root = OmegaConf.to_container(node, resolve=True), node._get_root()
    faults = list(target_faults("", plain, named_by_user(root)))
    if faults:
        raise GenrecError(report(faults))
