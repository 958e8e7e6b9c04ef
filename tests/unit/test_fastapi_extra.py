"""FastAPI is an extra: nothing of the runtime needs it but the router, which says so."""

from __future__ import annotations

import subprocess
import sys


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)


def test_without_fastapi_the_router_names_the_extra() -> None:
    done = _python("import sys; sys.modules['fastapi'] = None; import spine_migrate.execution.fastapi")
    assert done.returncode == 1
    assert "ImportError: The runs router needs FastAPI; install it with: pip install 'spine-migrate[fastapi]'" in (
        done.stderr
    )


def test_a_worker_loads_no_fastapi() -> None:
    done = _python(
        "import sys, spine_migrate.execution, spine_migrate.execution.worker;"
        "print({'fastapi', 'pydantic', 'starlette'} & set(sys.modules))"
    )
    assert (done.returncode, done.stdout) == (0, "set()\n")
