"""debian-13 on its own: to a login prompt without a network, and off again by the power button."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.test_debian import machine

LOGIN_SECONDS = 900.0


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_debian_13_boots_to_a_login_prompt(built_image: Callable[[str], Path]) -> None:
    image = built_image("debian-13").resolve()
    words = ["--memory", "1G", "--cpus", "2", "--network", "none", "--timeout", "1500"]
    with machine(image, *words) as console:
        said = console.wait_for("debian-13 login: ", LOGIN_SECONDS)
        assert "Failed to start" not in said
