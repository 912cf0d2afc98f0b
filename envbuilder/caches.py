"""Where packages keep what they compile: variables that move it out of environments, which nothing may write into.

Only what is made anew where it is lost. Hubs of models (``HF_HOME``, ``TORCH_HOME``, ``XDG_CACHE_HOME``) are shared on
purpose, and whatever switches a cache on (``JAX_COMPILATION_CACHE_DIR``) is a person's own choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

# By the packages' own documentation. Some put files beside their code where they can (numba), or share one folder
# between versions that do not understand each other's files (torch's extensions).
_FOLDERS = {
    "CUPY_CACHE_DIR": "cupy",
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TORCH_EXTENSIONS_DIR": "torch_extensions",
    "TRITON_CACHE_DIR": "triton",
    "WARP_CACHE_PATH": "warp",
}
# Files that tell by their names who made them.
_MAKERS = (
    (re.compile(r"\.nb[ic]$"), "NUMBA_CACHE_DIR"),
    (re.compile(r"(^|/)fontlist-v[^/]*\.json$"), "MPLCONFIGDIR"),
    (re.compile(r"\.py[co]$"), "PYTHONPYCACHEPREFIX"),
)
_ASKED = re.compile(r"""(?:environ(?:\.get|\.setdefault)?|getenv)\s*[\[(]\s*["']([A-Z][A-Z0-9_]+)["']""")
_TELLING = re.compile(r"CACHE|COMPILE|CONFIG_?(?:DIR|PATH|HOME)|(?:DATA|WORK|TMP|TEMP)_?(?:DIR|PATH|HOME)")
_LARGEST_SOURCE = 1_000_000


def folder(shared: Path, plugin: str, key: str) -> Path:
    """Where an environment's packages keep what they compile, in the plugin's own cache folder."""
    return shared / "cache" / plugin / "compiled" / key


def variables(place: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The variables that point into a folder; those that are given already stay as they are."""
    return {name: str(place / below) for name, below in _FOLDERS.items() if name not in given}


def named(written: Iterable[str], sources: Iterable[Path]) -> list[str]:
    """The variables that may move files elsewhere: by their names, or by what the code that wrote them asks for.

    Args:
        written: paths of the files.
        sources: the Python files of the package that wrote them.
    """
    known = {variable for name in written for pattern, variable in _MAKERS if pattern.search(name)}
    return sorted(known) or sorted({name for source in sources for name in _asked(source)})


def _asked(source: Path) -> list[str]:
    try:
        if source.stat().st_size > _LARGEST_SOURCE:
            return []
        text = source.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [name for name in _ASKED.findall(text) if _TELLING.search(name)]
