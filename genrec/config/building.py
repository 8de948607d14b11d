"""Building the objects that a config describes."""

from __future__ import annotations

from typing import Any

from genrec.contracts import GenrecError


def instantiate(node: Any, **options: Any) -> Any:
    """As ``hydra.utils.instantiate``, but a mistake of the user that a constructor reports keeps its own words."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as build

    try:
        return build(node, **options)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, GenrecError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None
