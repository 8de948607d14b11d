"""The optional extras: which are installed, and what can be done with the others."""

from __future__ import annotations

from collections.abc import Iterator

from genrec.doctor.findings import Finding, Places, ok, warning
from genrec.doctor.requirements import packages, requirements

PURPOSES = {
    "text": "encoder=sentence_transformer and encoder=minilm for texts without precomputed vectors",
    "faiss": "trainer.ann=faiss: an index of the nearest items",
    "s3": "data at s3:// addresses",
    "gcs": "data at gs:// addresses",
    "azure": "data at az:// and abfs:// addresses",
    "mlflow": "logger=mlflow",
    "sweep": "searches: -m sweep=optuna, random, cmaes, pareto",
    "parallel": "jobs of a sweep side by side: hydra/launcher=parallel",
    "slurm": "jobs of a sweep on a Slurm cluster: hydra/launcher=slurm",
    "ray": "jobs of a sweep on a Ray cluster: hydra/launcher=ray_cluster",
    "bench": "comparisons with other frameworks: make bench",
    "dev": "tests and checks: make check test",
}


def check_extras(_: Places) -> Iterator[Finding]:
    """Nothing here is needed, but what is installed should be of a version that will do."""
    wanted = requirements()
    for extra, names in wanted.extras.items():
        purpose = PURPOSES.get(extra, extra)
        found = packages(names)
        missing = [package.name for package in found if package.version is None]
        old = [package for package in found if package.version is not None and not package.fits]
        if old:
            told = ", ".join(f"{package.name} {package.version} is not {package.requirement}" for package in old)
            yield warning(extra, told, f"For {purpose}: {wanted.install(extra)}")
        elif missing:
            yield ok(extra, f"not installed: {', '.join(missing)}", f"Only for {purpose}: {wanted.install(extra)}")
        else:
            yield ok(extra, f"installed: {purpose}")
