"""Python and the packages, against the ranges that the project's own metadata states."""

import platform
from importlib import metadata

from cacovid.commands.checks.result import Check

PROJECT = "cacovid"


def check_versions() -> list[Check]:
    """One line for Python and for every package that the project requires."""
    from packaging.requirements import Requirement

    try:
        distribution = metadata.distribution(PROJECT)
    except metadata.PackageNotFoundError:
        detail = "the package has no metadata, so neither its methods nor its lmms-eval models are found"
        return [Check(name=PROJECT, state="missing", detail=detail, get="pip install -e . in its source folder")]
    lines = [Check(name=PROJECT, state="ok", detail=distribution.version), _python(distribution)]
    for text in distribution.requires or []:
        need = Requirement(text)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            lines.append(_package(need.name, str(need.specifier)))
    return lines


def _python(distribution: metadata.Distribution) -> Check:
    wanted = distribution.metadata["Requires-Python"] or ""
    return _verdict("python", platform.python_version(), wanted, get=f"install Python {wanted}")


def _package(name: str, wanted: str) -> Check:
    get = f"pip install '{name}{wanted}'"
    try:
        return _verdict(name, metadata.version(name), wanted, get=get)
    except metadata.PackageNotFoundError:
        return Check(name=name, state="missing", detail=f"not installed, needs {wanted or 'any version'}", get=get)


def _verdict(name: str, version: str, wanted: str, *, get: str) -> Check:
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Check(name=name, state="ok", detail=f"{version} (supported: {wanted})" if wanted else version)
    return Check(name=name, state="problem", detail=f"{version}, supported: {wanted}", get=get)
