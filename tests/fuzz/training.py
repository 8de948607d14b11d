"""Real runs on shops of a few users: two steps of every model, trainer and schedule with sound values of their keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import genrec.pipeline
from tests.fuzz.cases import Area, Case
from tests.fuzz.overrides import leaves
from tests.fuzz.starting import composed, composer

_ALWAYS = ("progress=false", "logger=none", "hardware=cpu", "hardware.num_threads=1", "trainer.max_steps=2")
_FAMILIES = {
    "sequences": ("sasrec", "hstu", "vae", "item_knn", "popularity", "text_knn", "gru4rec", "comirec", "youtube_dnn",
                  "dssm"),
    "tokens": ("tiger", "tiger_item", "rpg"),
    "graph": ("gat", "lightgcn", "xsimgcl", "bpr_mf"),
    "items": ("rqvae",),
    "rows": ("logistic_regression", "fm", "wide_deep", "deepfm", "dcnv2", "autoint", "din", "fcn", "shared_bottom",
             "mmoe", "ple", "esmm", "aitm", "base_rate", "gradient_boosting"),
}  # fmt: skip
_TRAINERS = {
    "sequences": ("simple", "advanced", "advanced", "curriculum", "online", "match", "apr"),
    "tokens": ("simple", "advanced", "tiger", "curriculum", "online"),
    "graph": ("simple", "advanced", "advanced", "apr", "match"),
    "items": ("rqvae", "rqvae", "simple"),
    "rows": ("ctr", "mtl", "simple"),
}
_SMALL = (0, 1, 2, 3, 4, 5, 7, 8, 16, 33, -1)
_SHARES = (0.0, 1.0, 0.5, 0.001, 0.999, 0.1, 2.0, 10.0, 1e-8, 1e4, -1.0)
# What only makes a run longer, or says what it is made of.
_KEPT = (
    "max_steps",
    "monitor",
    "mode",
    "max_epochs",
    "_target_",
    "_partial_",
    "path",
    "num_threads",
    "k_values",
    "filter_seen",
    "split",
)
_SECTIONS = ("model", "trainer", "optimizer", "scheduler", "tokenizer", "encoder", "split", "callbacks")


def training(random: Random, folder: Path) -> Case:
    """A whole run, its test included."""
    words = line(random, folder)
    return Case("python -m genrec.run " + " ".join(map(repr, words)), lambda: run(words, folder))


def run(words: Sequence[str], folder: Path) -> None:
    """Executes a run in ``folder``."""
    config = composed(words, folder)
    genrec.pipeline.execute(config)


def line(random: Random, folder: Path) -> list[str]:
    """Sound words of a command line."""
    family = random.choice([*_FAMILIES, "sequences", "tokens"])
    groups = [
        f"model={random.choice(_FAMILIES[family])}",
        f"trainer={random.choice(_TRAINERS[family])}",
        f"optimizer={random.choice(composer().options('optimizer'))}",
        f"tokenizer={random.choice(['rqkmeans', 'rqkmeans', 'rqvae', 'opq'])}",
        f"callbacks={random.choice([*composer().options('callbacks'), 'none', 'none'])}",
    ]
    if random.random() < 0.5:
        groups.append(f"scheduler={random.choice(composer().options('scheduler'))}")
    data = rows_of_a_shop(random, folder) if family == "rows" else shop(random, folder)
    has_text = data[0] != "data=folder" or (folder / "data" / "items.csv").exists()
    groups.append(f"encoder={random.choice(['tfidf', 'collaborative']) if has_text else 'collaborative'}")
    words = [*groups, *data, *_ALWAYS, f"trainer.max_epochs={random.choice([1, 2])}"]
    if "split" not in "".join(data):
        words += [f"split={random.choice(splits(family))}"]
    if random.random() < 0.6:
        words.append("baselines=null")
    if random.random() < 0.3:
        words.append(f"k_values=[{random.choice(['1', '1,1000', '5', '3,3', '50'])}]")
    if random.random() < 0.2:
        words.append(f"filter_seen={random.choice(['true', 'false'])}")
    keys = [(key, value) for key, value in leaves(tuple(words)) if _fit(key)]
    for key, _ in random.sample(keys, min(len(keys), random.choice([0, 1, 2, 3, 5]))):
        value = sound(random, key, words)
        if value is not None:
            words.append(f"{key}={value}")
    return words


def splits(family: str) -> tuple[str, ...]:
    """The splits that go with the data of a family."""
    if family == "rows":
        return ("random_rows", "random_rows", "global_time")
    return ("leave_one_out", "leave_one_out", "ratio_per_user", "global_time")


def _fit(key: str) -> bool:
    return key.split(".")[0] in _SECTIONS and key.count(".") >= 1 and key.rpartition(".")[2] not in _KEPT


def sound(random: Random, key: str, words: Sequence[str]) -> str | None:
    """A value that the signature allows for a key; None where none of those known here is."""
    from genrec.annotations import accepts, as_yaml, choices
    from genrec.config.ranges import narrowed
    from genrec.config.signatures import TargetNotFoundError, read_signature

    path, _, name = key.rpartition(".")
    target = dict(leaves(tuple(words))).get(f"{path}._target_")
    if not isinstance(target, str):
        return None
    try:
        parameter = read_signature(target).parameters.get(name)
    except TargetNotFoundError:
        return None
    if parameter is None:
        return None
    annotation = narrowed(path, target, name, parameter.annotation)
    if annotation is Any:
        return None
    lists: list[Any] = [[], [1], [2, 2], [8, 4, 2], [0.5, 0.5], [0.9, 0.99], [1, 2, 3]]
    tried: list[Any] = [None, True, False, *choices(annotation), *_SMALL, *_SHARES, *lists, "a"]
    fitting = [value for value in tried if accepts(annotation, value)]
    numbers = [value for value in fitting if value is not None and value != "a"]
    return as_yaml(random.choice(numbers or fitting)) if fitting else None


# ---- tiny shops -----------------------------------------------------------------------------------------------------


def shop(random: Random, folder: Path) -> list[str]:
    """Words that choose a tiny shop: an invented one, or files that are written into ``folder``."""
    if random.random() < 0.3:
        users, items = random.choice([3, 8, 20]), random.choice([16, 20, 30])
        music = random.random() < 0.3
        small = ["data.source.num_artists=5", "data.source.num_genres=2", "data.source.mean_length=8"] if music else [
            "data.source.num_categories=2", "data.source.num_brands=2", "data.source.mean_length=6"]  # fmt: skip
        minimum = "data.source.min_length=3"
        return [f"data={'synthetic_music' if music else 'synthetic'}", f"data.source.num_users={users}",
                f"data.source.num_items={items}", minimum, *small]  # fmt: skip
    users, items = random.choice([1, 2, 3, 12, 12, 12]), random.choice([1, 2, 3, 10, 40])
    length = random.choice([1, 2, 3, 4, 6, 6, 9, 30])
    times = random.random() < 0.7
    made = ["user_id,item_id" + (",timestamp" if times else "") + ",weight"]
    for user in range(users):
        for place in range(random.randint(1, length) if random.random() < 0.3 else length):
            moment = [str(random.choice([place, 0, user * 100 + place, 5]))] if times else []
            made.append(",".join([f"u{user}", str(random.randrange(items)), *moment, str(random.choice([1, 2, 0.5]))]))
    place = folder / "data"
    place.mkdir()
    (place / "interactions.csv").write_text("\n".join(made) + "\n")
    if random.random() < 0.6:
        titles = random.choice([lambda item: f"thing {item}", lambda _: "same", lambda _: "", lambda i: f"a{i % 2} b"])
        listed = items + random.choice([0, 0, 3])
        text = "".join(f"{item},{titles(item)},c{item % 2}\n" for item in range(listed))
        (place / "items.csv").write_text("item_id,title,category\n" + text)
    words = ["data=folder", f"data.path={place}"]
    if random.random() < 0.15:
        words.append("data.edge_weight=weight")
    if random.random() < 0.15:
        words.append("data.item_relations={category: null}")
    if random.random() < 0.15:
        words.append(f"data.source.unused_items={random.choice(['keep', 'drop'])}")
    return words


def rows_of_a_shop(random: Random, folder: Path) -> list[str]:
    """Words that choose a tiny table of rows."""
    if random.random() < 0.25:
        small = ["data.source.num_users=8", "data.source.num_items=20", "data.source.num_categories=2"]
        tasks = random.choice(["[click]", "[click,buy]", "[click,buy,spend]", "[spend]"])
        return ["data=synthetic_clicks", *small, f"data.source.num_rows={random.choice([40, 300])}",
                "split=global_time", f"data.tasks={tasks}"]  # fmt: skip
    count = random.choice([3, 10, 60])
    made = ["click,buy,spend,user,item,age,tags,time"]
    constant = random.random() < 0.15
    for row in range(count):
        click = 1 if constant else random.randrange(2)
        buy = click and random.randrange(2)
        age = random.choice([str(random.randrange(90)), "", "1e30", "0", "nan"])
        tags = "|".join(str(random.randrange(5)) for _ in range(random.choice([0, 1, 3, 9])))
        spend = random.choice([0, 1.5, 1e6]) if buy else 0
        made.append(f"{click},{buy},{spend},u{random.randrange(4)},{random.randrange(9)},{age},{tags},{row}")
    place = folder / "rows.csv"
    place.write_text("\n".join(made) + "\n")
    labels = random.choice(
        ["click", "[click,buy]", "{click: click, buy: {given: click}}", "{spend: {kind: regression}}",
         "{click: click, spend: {kind: regression}}", "{click: click, buy: {given: click}, spend: {kind: regression}}"]
    )  # fmt: skip
    words = ["data=table", f"data.path={place}", f"data.labels={labels}", "data.timestamp=time"]
    if random.random() < 0.6:
        pooling = random.choice(["mean", "sum", "attention"])
        target = ", target: item" if pooling == "attention" else ""
        words.append(
            f"data.features={{user: sparse, item: {{type: sparse, hash: {random.choice([1, 4])}}}, age: dense, "
            f"tags: {{type: sequence, separator: '|', pooling: {pooling}{target}}}}}"
        )
    if random.random() < 0.3:
        words.append("data.group=user")
    return words


AREAS = (Area("training", training, share=0.2, seconds=90),)
