"""One of the other processes of a run or a command: ``python -m genrec.worker``, which these start themselves."""

from __future__ import annotations

import logging
import sys
from importlib import import_module

from genrec.contracts import GenrecError
from genrec.interruption import Interrupted, Interruption
from genrec.processes import end_with_leader
from genrec.trainers.world import joined

COMMANDS = ("recommend", "generate", "predict")  # each has a ``take_part``; without a name it is a run


def main() -> None:
    """Takes its share of what the leader tells of."""
    end_with_leader()
    logging.basicConfig(format="%(message)s", level=logging.ERROR)
    words = sys.argv[1:]
    try:
        if words:
            assert words[0] in COMMANDS
            world = joined()
            command = import_module(f"genrec.{words[0]}")
            command.take_part(command.Request(**world.told({})), world)
        else:
            from genrec.pipeline import follow

            with Interruption(patient=True).heard() as interruption:
                follow(joined(), interruption)
    except Interrupted:
        return  # the leader, which has ended at the same step, tells of it
    except GenrecError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
