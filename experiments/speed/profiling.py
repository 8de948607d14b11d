"""Where our own time goes: the share of each kind of operator in our training steps and searches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from torch.profiler import ProfilerActivity, profile

from experiments.speed.decoding import Case, Recommend, history_batches
from experiments.speed.ours import Training
from experiments.speed.setting import BF16, LIGHTNING, Setting
from experiments.speed.training_sasrec import sasrec
from experiments.speed.training_tiger import OUR_BATCHES, tiger, tiger_item

BEGIN, END = "<!-- profile: written by `make bench ARGS=--profile` -->", "<!-- end of profile -->"

# The first word that an operator's name contains decides its kind.
_KINDS = (
    ("attention", ("scaled_dot_product", "flash_attention")),
    ("batched products (attention)", ("bmm", "baddbmm")),
    ("products (linear layers, softmax over items)", ("mm", "linear", "mkldnn")),
    ("optimizer", ("fused_adam", "_foreach", "optimizer")),
    ("softmax and loss", ("softmax", "nll_loss", "logsumexp", "cross_entropy")),
    ("normalisation", ("norm",)),
    ("dropout", ("dropout", "bernoulli", "random", "native_dropout")),
    ("look-ups", ("embedding", "index", "gather", "scatter")),
    ("sorting", ("topk", "sort")),
    ("copies and conversions", ("copy", "clone", "_to_copy", "cat", "stack", "contiguous")),
)


def reports(setting: Setting) -> Iterator[tuple[str, dict[str, float]]]:
    """For each of our workloads its name and the share of the time by kind of operator, largest first."""
    precision = BF16 if BF16 in setting.precisions else setting.precisions[0]
    for name, run in _workloads(setting, precision):
        try:
            work = run()
        except (ImportError, TypeError, ValueError) as error:
            yield f"{name}: {error}", {}
            continue
        work()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            work()
        yield f"{name}, {precision}", shares(profiler.key_averages())


def _workloads(setting: Setting, precision: str) -> list[tuple[str, Callable[[], Callable[[], Any]]]]:
    def training(model: Callable[[], Any], batch_size: int, steps: int) -> Callable[[], Training]:
        return lambda: Training(
            model(), setting.view, setting.folder, batch_size=batch_size, steps=steps, precision=LIGHTNING[precision]
        )

    def search(model: Callable[[], Any]) -> Callable[[], Recommend]:
        return lambda: Recommend(model(), history_batches(setting, setting.ids, 64, 32), 20, precision)

    case = Case("beam 20", None, 20, 32)
    return [
        (
            "training TIGER, faithful",
            training(lambda: tiger(setting, "bidirectional"), OUR_BATCHES["bidirectional"], 8),
        ),
        ("training TIGER, one pass", training(lambda: tiger(setting, "causal"), OUR_BATCHES["causal"], 8)),
        ("training tiger_item", training(lambda: tiger_item(setting, setting.ids), OUR_BATCHES["tiger_item"], 32)),
        (
            "training SASRec",
            training(lambda: sasrec(setting), 512, 48),
        ),
        (f"TIGER, {case.name}", search(lambda: tiger(setting, "bidirectional", num_beams=case.beams))),
        (f"tiger_item, {case.name}", search(lambda: tiger_item(setting, setting.ids, num_beams=case.beams))),
    ]


def shares(events: Any) -> dict[str, float]:
    """Share of the operators' own time by kind, largest first; Python between them is not in it."""
    sums: dict[str, float] = defaultdict(float)
    for event in events:
        sums[kind_of(event.key)] += event.self_cpu_time_total
    total = sum(sums.values()) or 1.0
    return dict(sorted(((kind, spent / total) for kind, spent in sums.items()), key=lambda pair: -pair[1]))


def kind_of(operator: str) -> str:
    name = operator.lower()
    for kind, words in _KINDS:
        if any(word in name for word in words):
            return kind
    return "element-wise and the rest"


def line(parts: dict[str, float]) -> str:
    return ", ".join(f"{kind} {share:.0%}" for kind, share in parts.items() if share >= 0.01)


def markdown(found: list[tuple[str, dict[str, float]]]) -> str:
    """One line for each workload."""
    lines = ["| workload | where the time of its operators goes |", "|---|---|"]
    for name, parts in found:
        lines.append(
            f"| {name} | {', '.join(f'{kind} {share:.0%}' for kind, share in parts.items() if share >= 0.01)} |"
        )
    return "\n".join(lines)
