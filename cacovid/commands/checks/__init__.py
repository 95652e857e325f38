"""What `doctor` looks at: each module tries one part of the installation for real."""

from collections.abc import Callable

from cacovid.commands.checks.attention import check_attention
from cacovid.commands.checks.decoders import check_decoders
from cacovid.commands.checks.device import check_devices
from cacovid.commands.checks.result import Check
from cacovid.commands.checks.suite import check_storage, check_suite
from cacovid.commands.checks.versions import check_versions

CHECKS: dict[str, Callable[[], list[Check]]] = {
    "versions": check_versions,
    "devices": check_devices,
    "decoders": check_decoders,
    "attention": check_attention,
    "suite": check_suite,
    "storage": check_storage,
}

__all__ = ["CHECKS", "Check"]
