"""One of the other processes of a run: ``python -m genrec.worker``, which the run itself starts."""

from __future__ import annotations

import logging
import sys

from genrec.contracts import GenrecError
from genrec.pipeline import follow
from genrec.processes import end_with_leader
from genrec.trainers.world import joined


def main() -> None:
    """Takes its share of the run that the leader tells of."""
    end_with_leader()
    logging.basicConfig(format="%(message)s", level=logging.ERROR)
    try:
        follow(joined())
    except GenrecError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
