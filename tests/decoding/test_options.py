from __future__ import annotations

import subprocess
import sys

import pytest

from genrec.contracts import GenrecError
from genrec.decoding.options import check_count, check_sampling


def test_the_key_is_named_with_its_place() -> None:
    with pytest.raises(GenrecError, match=r"^trainer\.generation_top_p=2\.0: give a share"):
        check_sampling(temperature=1.0, top_k=0, top_p=2.0, prefix="trainer.generation_")
    check_sampling(temperature=0.01, top_k=0, top_p=1.0)
    with pytest.raises(GenrecError, match="num_samples=0"):
        check_count(0)


def test_checking_needs_no_torch() -> None:
    script = "import sys, genrec.decoding.options; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
