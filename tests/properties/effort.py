"""How many examples are drawn: a few that never change, or as many new ones as ``GENREC_FUZZ`` says."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def effort(examples: int) -> settings:
    """Settings of a property that is quick to try."""
    asked = os.environ.get("GENREC_FUZZ")
    return settings(
        max_examples=int(asked or examples),
        derandomize=asked is None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
