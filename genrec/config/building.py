"""Building the objects that a config describes."""

from __future__ import annotations

from typing import Any

from genrec.config.faults import report
from genrec.config.targets import named_by_user, target_faults
from genrec.contracts import GenrecError


def instantiate(node: Any, **options: Any) -> Any:
    """As ``hydra.utils.instantiate`` of what a config may name (``genrec.config.targets``), all of it judged first.

    A mistake of the user that a constructor reports keeps its own words.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as build

    refuse_targets(node)
    try:
        return build(node, **options)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, GenrecError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None


def refuse_targets(node: Any) -> None:
    """Raises ``GenrecError`` for a node that names what a config may not run; the root of the node says what it may."""
    from omegaconf import DictConfig, OmegaConf

    plain, root = node, None
    if isinstance(node, DictConfig):
        plain, root = OmegaConf.to_container(node, resolve=True), node._get_root()
    faults = list(target_faults("", plain, named_by_user(root)))
    if faults:
        raise GenrecError(report(faults))
