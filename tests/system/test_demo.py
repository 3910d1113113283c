"""`make demo`, from nothing but an image that was built before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from celaje import paths
from celaje.cli.cloud_client import running
from tests.machine_processes import end
from tests.system.cloud_host import CloudHost

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_passes(built_image: Callable[[str], Path]) -> None:
    host = CloudHost(paths.home(), built_image("debian-mini"))
    try:
        demo = [sys.executable, str(ROOT / "demo" / "cloud.py")]
        done = subprocess.run(demo, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "hello from S3" in done.stdout
    finally:
        found = running()
        end(found.process if found else None)
        host.end()
