"""Lightning's strategies for processes that have met already."""

from __future__ import annotations

from typing import Any

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy, Strategy

from genrec.trainers.division import divide
from genrec.trainers.hardware import Hardware
from genrec.trainers.learner import Learner
from genrec.trainers.world import World


def strategy_options(hardware: Hardware, *, by_hand: bool) -> dict[str, Any]:
    """The arguments of ``pl.Trainer`` that the world of ``hardware`` decides; ``by_hand``: whether a policy averages
    gradients itself."""
    world = hardware.world
    if world.size == 1:
        return {"plugins": [_Met(world)]}  # or Lightning would look for a job of Slurm and judge its settings
    return {
        "devices": 1,  # that Lightning may count; those of the strategy are what it takes
        "num_nodes": max(1, world.size // world.local_size),
        "strategy": _strategy(hardware, by_hand=by_hand),
    }


def _strategy(hardware: Hardware, *, by_hand: bool) -> Strategy:
    options: dict[str, Any] = {
        "by_hand": by_hand,
        "cluster_environment": _Met(hardware.world),
        # Lightning takes the one at ``local_rank``; a process that sees one GPU alone has its own at 0.
        "parallel_devices": [hardware.device] * hardware.world.local_size,
    }
    if hardware.strategy == "fsdp":
        return _Divided(**options)
    # Not every parameter takes part in every step: a share may hold no target, and a stack its unused levels.
    return _Averaged(**options, find_unused_parameters=True, broadcast_buffers=False)


class _Met(ClusterEnvironment):
    """What Lightning asks of where its processes come from."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return ""

    @property
    def main_port(self) -> int:
        return 0

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.world.size

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.world.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.world.local_rank

    def node_rank(self) -> int:
        return self.world.rank // self.world.local_size


class _Averaged(DDPStrategy):
    """Every process has the whole model, and gradients are averaged: by torch, or ``by_hand`` by the policy."""

    def __init__(self, *, by_hand: bool, **options: Any) -> None:
        super().__init__(**options)
        self.by_hand = by_hand

    def setup_distributed(self) -> None:
        # Lightning's own would also start the random numbers anew, unlike in a run of one process.
        self.set_world_ranks()
        self._process_group_backend = self._get_process_group_backend()

    def configure_ddp(self) -> None:
        if not self.by_hand:
            super().configure_ddp()


class _Divided(_Averaged):
    """Every process has a part of the model."""

    def configure_ddp(self) -> None:
        assert isinstance(self.lightning_module, Learner)
        divide(self.lightning_module, self.root_device)
