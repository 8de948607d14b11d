"""Training policies. Names are imported when first used, so that one trainer does not load the others' dependencies."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrec.trainers.advanced import AdvancedTrainer
    from genrec.trainers.adversarial import APRTrainer
    from genrec.trainers.base import BaseTrainer, create_trainer
    from genrec.trainers.ctr import CTRTrainer
    from genrec.trainers.curriculum import CurriculumTrainer
    from genrec.trainers.hardware import Hardware
    from genrec.trainers.match import MatchTrainer
    from genrec.trainers.mtl import MTLTrainer
    from genrec.trainers.online import OnlineTrainer
    from genrec.trainers.rqvae import RQVAETrainer
    from genrec.trainers.simple import SimpleTrainer
    from genrec.trainers.tiger import TIGERTrainer

_HOMES = {
    "APRTrainer": "adversarial",
    "AdvancedTrainer": "advanced",
    "BaseTrainer": "base",
    "CTRTrainer": "ctr",
    "CurriculumTrainer": "curriculum",
    "Hardware": "hardware",
    "MTLTrainer": "mtl",
    "MatchTrainer": "match",
    "OnlineTrainer": "online",
    "RQVAETrainer": "rqvae",
    "SimpleTrainer": "simple",
    "TIGERTrainer": "tiger",
    "create_trainer": "base",
}

__all__ = [
    "APRTrainer",
    "AdvancedTrainer",
    "BaseTrainer",
    "CTRTrainer",
    "CurriculumTrainer",
    "Hardware",
    "MTLTrainer",
    "MatchTrainer",
    "OnlineTrainer",
    "RQVAETrainer",
    "SimpleTrainer",
    "TIGERTrainer",
    "create_trainer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"genrec.trainers.{_HOMES[name]}"), name)
