"""``compare-backends`` as a user of tests/compared_shop.py types it, in a folder of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.celery_worker import REPOSITORY
from tests.command import run

BOTH = ("--backend", "memory", "--backend", "local")


@dataclass(frozen=True)
class Desk:
    folder: Path
    broker: str = "memory://"

    @property
    def variables(self) -> dict[str, str]:
        """The working folder is that of the test, so the application is found on the path."""
        path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {"PYTHONPATH": path, "SPINE_TEST_BROKER_URL": self.broker}

    def compares(self, *words: str, url: str | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        ended = run(url, "compare-backends", *words, cwd=self.folder, env=self.variables)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended

    def here(self, name: str, *words: str, params: str = '{"n": 3}', code: int = 0) -> Any:
        """As JSON, in this process."""
        shop = ("--import", "tests.compared_shop")
        return json.loads(self.compares(name, "--params", params, *shop, "--json", *words, code=code).stdout)
