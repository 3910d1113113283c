"""Which engines there are."""

from __future__ import annotations

import pytest

from celaje.errors import UsageError
from celaje.host.engines import factory


def test_an_engine_that_there_is_not_names_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="there is no engine 'fast'; there are: auto, translate, evaluate"):
        factory("fast")
