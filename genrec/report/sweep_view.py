"""A sweep as the parts of its page need it: read once, counted once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from genrec.records import FAILED, FINISHED, KILLED, PRUNED, RUNNING, RunRecord, SweepRecord
from genrec.report.importance import Importances, parameter_importance
from genrec.report.run_config import secrets_of_sweep
from genrec.report.seed_groups import SeedGroup, seed_groups
from genrec.report.sweep_marks import Objective
from genrec.report.trials import SEED, Parameter, Trial, best_run, read_parameters, read_trials
from genrec.tables import TEST_PREFIX, short_names

MAX_TEST_METRICS = 4
KINDS = {FINISHED: "good", FAILED: "bad", KILLED: "warn", RUNNING: "busy", PRUNED: ""}  # of badges


@dataclass(frozen=True)
class SweepView:
    """A sweep as the parts of its page need it."""

    record: SweepRecord
    now: float

    @cached_property
    def trials(self) -> list[Trial]:
        return read_trials(self.record)

    @cached_property
    def parameters(self) -> list[Parameter]:
        return read_parameters(self.record.runs, self.record.swept, self.record.scales)

    @property
    def objectives(self) -> list[Objective]:
        return self.record.objectives

    @cached_property
    def names(self) -> list[str]:
        return short_names([parameter.name for parameter in self.parameters])

    @cached_property
    def best(self) -> RunRecord | None:
        return best_run(self.record.runs, *self.objectives[0]) if self.objectives else None

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(run.state for run in self.record.runs)

    @cached_property
    def groups(self) -> list[SeedGroup]:
        """Those with several seeds, the best mean first."""
        groups = [group for group in seed_groups(self.record) if len(group.seeds) > 1]
        metric, direction = self.objectives[0] if self.objectives else ("", "max")
        sign = 1 if direction == "min" else -1
        return sorted(groups, key=lambda group: (metric not in group.mean, sign * group.mean.get(metric, 0.0)))

    @cached_property
    def importances(self) -> list[Importances]:
        """One per objective."""
        return [parameter_importance(self.record.runs, self.record.swept, *objective) for objective in self.objectives]

    @cached_property
    def secrets(self) -> list[str]:
        """What may not stand on the page."""
        return secrets_of_sweep(self.record)

    @property
    def only_seeds(self) -> bool:
        return self.record.swept == [SEED]

    @property
    def wall_seconds(self) -> float:
        """From its start to its end, or to now; of a killed one, to when its last run wrote something."""
        sweep = self.record.sweep
        if sweep.get("seconds") and self.record.state == FINISHED:
            return float(sweep["seconds"])
        started = sweep.get("started") or min((run.started for run in self.record.runs), default=self.now)
        last = max((run.ended or run.started for run in self.record.runs), default=started)
        ended = self.now if self.record.state == RUNNING else sweep.get("ended") or last
        return max(float(ended) - float(started), 0.0)

    def seconds_of(self, run: RunRecord) -> float | None:
        """How long a run took, or takes already."""
        if run.seconds.get("total"):
            return float(run.seconds["total"])
        ended = self.now if run.state == RUNNING else run.ended
        if ended is None:
            return float(run.epochs[-1].get("seconds", 0.0)) if run.epochs else None
        return max(ended - run.started, 0.0)

    def test_metrics(self) -> list[str]:
        """Those worth a column, the usual ones first, less the objectives."""
        found = dict.fromkeys(name for run in self.record.runs for name in run.final if name.startswith(TEST_PREFIX))
        usual = [name for kind in ("recall@10", "ndcg@10", "auc") for name in found if name == TEST_PREFIX + kind]
        known = {name for name, _ in self.objectives}
        return [name for name in dict.fromkeys([*usual, *found]) if name not in known][:MAX_TEST_METRICS]
