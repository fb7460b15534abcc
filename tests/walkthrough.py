"""A page of the documents as somebody follows it: files written and commands typed in their order, as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.documents import ROOT, blocks

_OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_NO_DEPS": "1",
    # 0 is what turns it off: https://github.com/pypa/pip/issues/5735
    "PIP_NO_BUILD_ISOLATION": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
"""What is to be installed is there already: in this environment, which the page's own then sees."""
_SETTINGS = ("KAFKA_", "SCHEMA_REGISTRY_", "TOPIC_PREFIX", "PARTITIONS", "EXPECTED_MODELS", "MODEL_URI", "VIRTUAL_ENV")
_PATIENCE = 240.0


def follow(document: Path, folder: Path) -> str:
    """What the commands of a page print, typed in a folder beside the checkout; the first that fails ends it.

    Raises `AssertionError` with all that was printed when one fails.
    """
    (folder / "braidstream").symlink_to(ROOT)
    script = "".join(_typed(language, code, file) for language, code, file in blocks(document))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    environment = {
        **inherited,
        **_OFFLINE,
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # Every shell, the one that a command opens too, ends at the first command that fails.
        "SHELL": "/bin/bash",
        "SHELLOPTS": "errexit",
    }
    done = subprocess.run(
        ["/bin/bash"],
        input=script,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{document.name} ended with {done.returncode}:\n{done.stdout}\n{_logs(folder)}"
    return done.stdout


def _typed(language: str, code: str, file: str) -> str:
    if language == "sh":
        return code
    return f"cat > {file} <<'END OF FILE'\n{code}END OF FILE\n" if file else ""


def _logs(folder: Path) -> str:
    return "\n".join(f"{path}:\n{path.read_text()}" for path in sorted(folder.glob("*/*.log")))
