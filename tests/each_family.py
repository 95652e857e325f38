"""The mark of a test that holds for every backbone family; `family` in conftest.py is what it sets."""

import pytest

from cacovid.backbones import BACKBONES

both_families = pytest.mark.parametrize("family", sorted(BACKBONES), indirect=True, scope="session")
