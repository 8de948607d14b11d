"""Do explanations name what matters? Takes the named edges of some users out of the graph, and as many others.

python experiments/lastfm/fidelity.py outputs/studies/lastfm/lastfm/gat/seed_1 --users 60
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run of gat, lightgcn or xsimgcl")
    parser.add_argument("--users", type=int, default=60, help="how many users, drawn at random")
    parser.add_argument("--evidence", type=int, default=5, help="how many neighbours are named of each")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    from genrec.explanations import Explainer
    from genrec.pipeline import load_run

    options = parse(arguments)
    run = load_run(options.run)
    history = run.dataset.sequences.history("all")
    users = np.random.default_rng(0).choice(len(history), min(options.users, len(history)), replace=False)
    found = Explainer(run.model).fidelity(users.tolist(), max_evidence=options.evidence, masked=list(history))
    sys.stdout.write(
        f"{found['users']:.0f} users: the best item loses {found['named']:.3f} of its score without the named edges, "
        f"{found['random']:.3f} without as many random ones; the named ones matter more for {found['better']:.0%}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
