"""Clusters for all tests here; they skip with the reason where Slurm is not installed, unless it is required."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.cluster import ACCOUNTING_PROGRAMS, PROGRAMS, Cluster, missing

REQUIRED = os.environ.get("CACOVID_SLURM") == "required"
"""Set by .ci/run in CI: there a missing Slurm is a failure."""


def running(programs: tuple[str, ...], *, accounting: bool) -> Iterator[Cluster]:
    if absent := missing(programs):
        reason = f"not installed: {', '.join(absent)}; CONTRIBUTING.md says how to get them"
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,  # pytest's own are too long for a socket's path
        Cluster(Path(folder), accounting=accounting) as cluster,
    ):
        yield cluster
    assert not cluster.processes()


@pytest.fixture(scope="session")
def plain() -> Iterator[Cluster]:
    yield from running(PROGRAMS, accounting=False)


@pytest.fixture(scope="session")
def with_accounting() -> Iterator[Cluster]:
    yield from running(PROGRAMS + ACCOUNTING_PROGRAMS, accounting=True)


@pytest.fixture
def cluster(plain: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster that this process's `sbatch` talks to."""
    monkeypatch.setenv("SLURM_CONF", plain.environment["SLURM_CONF"])
    return plain


@pytest.fixture
def accounting_cluster(with_accounting: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The same, for the one with slurmdbd."""
    monkeypatch.setenv("SLURM_CONF", with_accounting.environment["SLURM_CONF"])
    return with_accounting
