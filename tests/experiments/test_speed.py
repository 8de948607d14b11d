"""The bench's own arithmetic, on clocks that tell an invented time, and one tiny section from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.speed import data, ranking, table
from experiments.speed.__main__ import SECTIONS, main, parse
from experiments.speed.machine import CpuClock, Machine, matrix_rate
from experiments.speed.measure import Absent, Contender, Referee, Rules, Task, Turn, Work, build_row, fastest, shown
from experiments.speed.memory import PeakMemory
from experiments.speed.ours import WARM_UP_STEPS, Training, sampled
from experiments.speed.profiling import kind_of
from experiments.speed.setting import Setting, attempt, optional
from experiments.speed.table import Row
from genrec.contracts import DataSpec
from genrec.data.rows import Rows
from genrec.models.tiger import Tiger

MACHINE = Machine("a processor", 2, 1, "2", "3", {"fp32": 1e9, "bf16": 2e9}, bandwidth=1e6, bf16_pays=True)
TINY = {"embedding_dim": 8, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 1, "head_dim": 8}


class World:
    """A time of its own, on two cores of which others take a share that the test sets for each attempt."""

    def __init__(self, foreign: list[float]) -> None:
        self.time, self.everyone, self.own = 0.0, 0.0, 0.0
        self.foreign = foreign
        self.attempts = 0

    def pass_by(self, seconds: float, share: float) -> None:
        self.time += seconds
        self.own += seconds
        self.everyone += seconds * (1 + 2 * share)

    def work(self) -> Work:
        self.pass_by(1.0, self.foreign[min(self.attempts, len(self.foreign) - 1)])
        self.attempts += 1
        return Work(10.0)

    def clock(self) -> CpuClock:
        return CpuClock(self.time, self.everyone, self.own)

    def referee(self, **rules: float | bool) -> Referee:
        return Referee(
            Rules(**{"rounds": 1, "min_seconds": 0.5, **rules}),  # pyright: ignore[reportArgumentType]
            cores=2,
            clock=self.clock,
            sleep=lambda seconds: self.pass_by(seconds, 0.0),
            watch=lambda: self.time,
        )


def contender(call: Callable[[], Work], name: str = "one", **options: object) -> Contender:
    return Contender(name=name, call=call, measures_memory=False, **options)  # pyright: ignore[reportArgumentType]


def test_foreign_share_is_what_others_took_of_all_cores() -> None:
    before, later = CpuClock(0.0, 100.0, 10.0), CpuClock(10.0, 117.0, 26.0)
    assert before.foreign_share(later, cores=2) == pytest.approx(1.0 / 20)  # 17 s busy, 16 of them ours
    assert before.foreign_share(replace(later, own=30.0), cores=2) == 0.0  # clock ticks may round against us
    assert before.foreign_share(before, cores=2) == 0.0


def test_own_work_is_not_foreign() -> None:
    before = CpuClock.now()
    matrix_rate(torch.float32, sizes=(64,), seconds=0.05)
    assert CpuClock.now().own >= before.own


def test_a_quiet_turn_is_run_once() -> None:
    world = World([0.01])
    assert world.referee().turn(contender(world.work)).rate == pytest.approx(10.0)
    assert world.attempts == 1


def test_a_disturbed_turn_is_run_again_until_it_is_quiet() -> None:
    world = World([0.5, 0.3, 0.0, 0.9])
    referee = world.referee()
    assert referee.turn(contender(world.work)).foreign == pytest.approx(0.0)
    assert (world.attempts, referee.retries) == (3, 2)


def test_the_least_disturbed_attempt_counts_and_the_row_is_marked() -> None:
    world = World([0.5, 0.5, 0.1, 0.4, 0.3])  # the first is the warm-up
    [row] = world.referee(attempts=3).run(
        "s", Task(name="t", unit="s", contenders=[contender(world.work)], reference="")
    )
    assert row.foreign == pytest.approx(0.1) and row.busy
    assert "(busy)" in row.line()


def test_busy_is_allowed_where_asked_for() -> None:
    world = World([0.5])
    turn = world.referee(allow_busy=True).turn(contender(world.work))
    assert world.attempts == 1 and turn.foreign == pytest.approx(0.5)


def test_short_calls_are_repeated_until_a_turn_can_be_judged() -> None:
    world = World([0.0])
    turn = world.referee(min_seconds=2.5).turn(contender(world.work))
    assert world.attempts == 3 and turn.seconds == pytest.approx(3.0) and turn.rate == pytest.approx(10.0)


def test_work_with_a_watch_of_its_own_counts_its_own_seconds() -> None:
    world = World([0.0])

    def call() -> Work:
        world.work()
        return Work(10.0, seconds=0.25)

    assert world.referee().turn(contender(call)).rate == pytest.approx(40.0)


def test_contenders_take_turns_in_alternating_order() -> None:
    order: list[str] = []
    world = World([0.0])

    def called(name: str) -> Contender:
        return contender(lambda: (order.append(name), world.work())[1], name)

    task = Task(name="t", unit="s", contenders=[called("a"), called("b")], reference="a", rounds=2)
    world.referee().run("s", task)
    assert order == ["a", "b", *"ab", *"ba"]  # warm-ups, then the rounds


def test_a_row_has_medians_ranges_and_ratios_within_rounds() -> None:
    mine = [Turn(10.0, 1.0, 0.0), Turn(30.0, 1.0, 0.04), Turn(20.0, 2.0, 0.0)]
    peer = [Turn(5.0, 1.0, 0.0), Turn(10.0, 1.0, 0.0), Turn(20.0, 1.0, 0.0)]
    task = Task(name="t", unit="targets/s", contenders=[], reference="peer")
    row = build_row("s", task, contender(World([]).work, floor=0.01), mine, peer, 2_000_000, Rules())
    assert (row.value, row.low, row.high) == (20.0, 10.0, 30.0)
    assert (row.ratio, row.ratio_low, row.ratio_high) == (2.0, 1.0, 3.0)
    assert row.floor == pytest.approx(5.0)  # 1/20 s for a unit that needs 1/100
    assert row.foreign == pytest.approx(0.01) and not row.busy


def test_units_are_rates_or_times() -> None:
    assert (shown(4.0, "users/s"), shown(4.0, "s"), shown(4.0, "ms")) == (4.0, 0.25, 250.0)


def test_a_failing_peer_becomes_a_row_and_the_others_go_on() -> None:
    world = World([0.0])

    def fail() -> Work:
        raise RuntimeError("no such operator")

    entries = [
        contender(fail, "broken"),
        Absent(name="missing", reason="no module", quoted="58"),
        contender(world.work),
    ]
    rows = world.referee().run("s", Task(name="t", unit="s", contenders=entries, reference="broken"))
    assert [row.contender for row in rows] == ["broken", "missing", "one"]
    assert "no such operator" in rows[0].line() and "the issue quotes 58" in rows[1].line()
    assert rows[2].value == pytest.approx(0.1) and rows[2].ratio is None


def test_a_peer_that_is_not_installed_is_named() -> None:
    found = attempt("peer", lambda: optional("no_such_library.models", "Model"), quoted="4.7 s")
    assert isinstance(found, Absent) and "no_such_library" in found.reason and found.quoted == "4.7 s"


@pytest.mark.parametrize(
    ("target", "met"),
    [("4x", True), ("5.5x", False), ("< 2 s", True), ("< 1 s", False), ("< 300 MB", True), ("< 100 MB", False),
     ("4x, < 300 MB", True), ("4x, < 100 MB", False), ("", None)],
)  # fmt: skip
def test_targets(target: str, met: bool | None) -> None:
    row = Row(
        section="s", task="t", contender="c", unit="s", value=1.5, ratio=5.0, peak_bytes=200_000_000, target=target
    )
    assert row.met is met


def test_the_floor_is_products_or_traffic_whichever_is_slower() -> None:
    assert MACHINE.floor(3e9) == 3.0
    assert MACHINE.floor(3e9, precision="bf16") == 1.5
    assert MACHINE.floor(3e9, 5e6) == 5.0


def test_peak_memory_sees_what_is_allocated_and_freed() -> None:
    with PeakMemory() as peak:
        np.ones(8 << 20, dtype=np.uint8).sum()
    if peak.bytes is None:
        pytest.skip("no /proc/self/clear_refs here")
    assert 7 << 20 <= peak.bytes < 64 << 20  # the kernel counts in batches of pages


def test_results_come_back_and_measured_tasks_replace_old_ones(tmp_path: Path) -> None:
    old = [Row(section="a", task="1", contender=name, unit="s", value=1.0) for name in "xy"]
    old.append(Row(section="b", task="2", contender="x", unit="s", value=1.0))
    new = [Row(section="a", task="1", contender="x", unit="s", value=2.0)]
    table.save(table.merge(old, new), {"cpu": "c"}, tmp_path)
    rows, machine = table.load(tmp_path)
    assert rows == [*new, old[2]] and machine == {"cpu": "c"}
    assert (tmp_path / "results.csv").read_text().count("\n") == 3
    assert table.load(tmp_path / "nothing") == ([], {})


def test_the_table_goes_between_the_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    row = Row(section="s", task="t", contender="c", unit="s", reference="r", value=1.0, ratio=2.0, settings="as it is")
    table.write_into(readme, table.markdown([row], "a machine"))
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| c | 1.00 s | 2.00x |" in text and "c: as it is." in text
    readme.write_text("no marks")
    table.write_into(readme, "x")
    assert readme.read_text() == "no marks"


def test_the_readme_has_a_place_for_its_tables(repository: Path) -> None:
    from experiments.speed import profiling

    text = (repository / "experiments" / "speed" / "README.md").read_text()
    assert all(mark in text for mark in (table.BEGIN, table.END, profiling.BEGIN, profiling.END))


def test_invented_data_has_the_shape_of_beauty() -> None:
    view = data.invented_sequences(500, 300, 4400)
    whole = view.history("all")
    assert (view.num_users, view.num_items) == (500, 300)
    assert whole.lengths.min() >= 5 and abs(len(whole.values) - 4400) < 400
    assert (view.val.lengths == 1).all() and (view.test.lengths == 1).all()


def test_random_ids_are_unique_and_count_collisions() -> None:
    ids = data.random_ids(200, codes=4, levels=3)
    assert len(np.unique(ids.codes, axis=0)) == 200
    triples, counts = np.unique(ids.codes[:, :3], axis=0, return_counts=True)
    assert ids.codebook_sizes == (4, 4, 4, counts.max())
    of_first = ids.codes[(ids.codes[:, :3] == triples[0]).all(1), 3]
    assert sorted(of_first) == list(range(counts[0]))


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    view = data.invented_sequences(60, 40, 500)
    spec = DataSpec(60, 40, semantic_ids=data.random_ids(40, codes=4), train=view.train)
    model = Tiger(spec, **TINY, encoder="causal")  # pyright: ignore[reportArgumentType]
    return Training(model, view, tmp_path_factory.mktemp("run"), batch_size=16, steps=4, epochs=True)


def test_training_goes_through_the_real_trainer_and_is_scaled_to_an_epoch(training: Training) -> None:
    work = training()
    assert work.seconds is not None and work.seconds > 0
    assert work.units == pytest.approx(training.targets / training.whole)
    assert training.whole == (training.view.train.lengths - 1).sum()
    assert training.flops_per_unit() > training.whole * 1000


def test_sampled_batches_are_spread_over_all_lengths(training: Training) -> None:
    whole = sampled(training.plan.plan, None)
    assert sorted(whole.indices[WARM_UP_STEPS:]) == list(range(len(training.plan.plan)))
    some = sampled(training.plan.plan, 5)
    widths = sorted(some[i].items.shape[1] for i in range(WARM_UP_STEPS, len(some)))
    assert len(some) == 5 + WARM_UP_STEPS and widths[0] <= 4 and widths[-1] > widths[0]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return data.invented_table(40, num_sparse=3, num_dense=2, size=ranking.SIZE, longest=ranking.LENGTH)


def test_an_invented_table_has_ids_histories_and_labels_that_follow_each_other(rows: Rows) -> None:
    assert (rows.dense.shape, rows.sparse.shape, rows.labels.shape) == ((40, 2), (40, 3), (40, 2))
    [history] = rows.sequences
    lengths = np.diff(history.offsets)
    assert lengths.min() >= 1 and lengths.max() <= ranking.LENGTH and history.offsets[-1] == len(history.values)
    for ids in (rows.sparse, history.values):
        assert ids.min() >= 1 and ids.max() < ranking.SIZE  # 0 is of values that are not known, and peers pad with it
    assert rows.labels[:, 0].any() and not (rows.labels[:, 1] > rows.labels[:, 0]).any()


def test_ranking_models_and_their_peers_train_on_the_same_table(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "invented_table", lambda *_, **__: rows)
    monkeypatch.setattr(ranking, "BATCH", 16)
    monkeypatch.setattr(ranking, "CASES", ranking.CASES[1:2])
    first, second = ranking.tasks(Setting(MACHINE, tmp_path, quick=True))
    assert first.reference == "torch-rechub DIN, its trainer" and "40 rows, 3 sparse fields" in first.name
    assert second.reference == "torch-rechub DIN, bare steps, fp32"
    assert [c.target for c in first.contenders if isinstance(c, Contender) and c.ours] == ["3x", "3x"]
    for one in (*first.contenders, *second.contenders):
        if isinstance(one, Absent):
            assert "torch_rechub" in one.reason
        elif one.name.endswith(("bf16", "its trainer", "fused Adam, fp32")):
            work = one.call()
            assert work.units == 40 and (work.seconds is None or work.seconds > 0)


def test_peers_get_the_columns_of_the_table(rows: Rows) -> None:
    columns, labels = ranking.columns(rows)
    assert list(columns) == ["s0", "s1", "s2", "d0", "d1", "history"] and labels.shape == (40, 2)
    assert (columns["s1"] == rows.sparse[:, 1]).all() and (columns["d1"] == rows.dense[:, 1]).all()
    [history] = rows.sequences
    longest = columns["history"].shape[1]
    assert all(
        row.tolist() == [*history.values[begin:end].tolist(), *[0] * (longest - (end - begin))]
        for row, begin, end in zip(columns["history"], history.offsets[:-1], history.offsets[1:], strict=True)
    )
    assert ranking.columns(replace(rows, labels=rows.labels[:, :1]))[1].shape == (40,)


def test_operators_have_kinds() -> None:
    assert kind_of("aten::bmm") == "batched products (attention)"
    assert kind_of("aten::addmm").startswith("products")
    assert kind_of("aten::_softmax") == "softmax and loss"
    assert kind_of("aten::mul") == "element-wise and the rest"


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--only", "trie", "startup", "--threads", "1"]).only == ["trie", "startup"]
    with pytest.raises(SystemExit):
        parse(["--only", "nothing"])
    message = capsys.readouterr().err
    assert all(section in message for section in SECTIONS)


def test_a_section_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.speed import __main__ as program

    draw = data.random_ids
    monkeypatch.setattr(program, "measure_machine", lambda **_: MACHINE)
    monkeypatch.setattr(data, "random_ids", lambda num_items: draw(1000))
    flags = ["--only", "trie", "--quick", "--allow-busy", "--threads", str(torch.get_num_threads())]
    assert main([*flags, "--output", str(tmp_path)]) == 0
    shown_rows = capsys.readouterr().out
    assert "genrec Trie.from_codes" in shown_rows and "Trie of 1,000,000 items" in shown_rows
    saved = json.loads((tmp_path / "results.json").read_text())
    assert [row["contender"] for row in saved["rows"]] == ["dictionary of prefixes", "genrec Trie.from_codes"]
    assert saved["machine"]["cpu"] == "a processor" and saved["rows"][1]["ratio"] > 1
    rows, machine = table.load(tmp_path)
    table.save([*rows, replace(rows[0], task="a task that the section has no more")], machine, tmp_path)
    assert main([*flags, "--resume", "--output", str(tmp_path)]) == 0
    assert {row.task for row in table.load(tmp_path)[0]} == {row.task for row in rows}
    if not any(row["busy"] for row in saved["rows"]):
        assert "Trie.from_codes" not in capsys.readouterr().out  # nothing is measured twice


@pytest.mark.parametrize(("first_call", "expected"), [({1: 1.0, 2: 2.0}, 1), ({1: 9.0, 2: 5.0}, 2)])
def test_the_best_size_of_batch_is_found_and_a_short_first_call_not_counted(
    first_call: dict[int, float], expected: int
) -> None:
    now, calls = [0.0], {1: 0, 2: 0}

    def call(size: int) -> Work:
        calls[size] += 1
        now[0] += first_call[size] if calls[size] == 1 else 0.5 * size
        return Work(4.0)

    both: dict[int, Callable[[], Work]] = {1: lambda: call(1), 2: lambda: call(2)}
    assert fastest(both, watch=lambda: now[0]) == expected
    assert calls == ({1: 2, 2: 2} if expected == 1 else {1: 1, 2: 1})
    assert fastest({3: lambda: call(3)}) == 3  # where there is no choice nothing is tried


def test_settings_know_less_when_the_answer_may_be_rough() -> None:
    assert Setting(MACHINE, Path(), quick=True).few(10, 2) == 2
    assert Setting(MACHINE, Path()).precisions == ("fp32", "bf16")
    assert Setting(replace(MACHINE, bf16_pays=False), Path()).precisions == ("fp32",)
