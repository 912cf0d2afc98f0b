"""An interpreter with packages of its own, made of links to the one that runs the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from workshop import PYTHON


class Base:
    """An interpreter with packages of its own, as a cluster's modules have them.

    Its executable is a copy, its standard library a folder of links.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        real = Path(sys.base_prefix)
        library = f"lib/python{PYTHON}"
        (root / "bin").mkdir(parents=True)
        shutil.copy2(os.path.realpath(sys.executable), root / "bin" / f"python{PYTHON}")
        (root / "bin" / "python3").symlink_to(f"python{PYTHON}")
        (root / library).mkdir(parents=True)
        for each in (real / library).iterdir():
            if each.name not in {"site-packages", "dist-packages"}:
                (root / library / each.name).symlink_to(each)
        for each in (real / "lib").glob("libpython*"):
            (root / "lib" / each.name).symlink_to(each)
        self.python = root / "bin" / f"python{PYTHON}"
        ask: list[str | Path] = [self.python, "-I", "-c", "import site; print(site.getsitepackages()[0])"]
        self.packages = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
        assert self.packages.is_relative_to(root)
        self.packages.mkdir(parents=True, exist_ok=True)

    def install(self, wheel: Path) -> None:
        """Unpack a wheel among the base's packages, in place of what has its name there."""
        name = wheel.name.split("-")[0]
        for old in [self.packages / name, *self.packages.glob(f"{name}-*.dist-info")]:
            shutil.rmtree(old, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.packages)

    def environment(self, folder: Path, *flags: str) -> Base:
        """Make a virtual environment of it, which may be a base too."""
        subprocess.run([self.python, "-m", "venv", "--without-pip", *flags, folder], check=True)
        made = object.__new__(Base)
        made.root = folder
        made.python = folder / "bin" / "python3"
        made.packages = folder / "lib" / f"python{PYTHON}" / "site-packages"
        return made

    def compile(self) -> None:
        """Have its packages' bytecode beside them, as pip leaves it."""
        subprocess.run([self.python, "-m", "compileall", "-q", self.packages], check=True)

    @property
    def env(self) -> dict[str, str]:
        """Variables under which this is the interpreter that is found."""
        path = os.pathsep.join([str(self.root / "bin"), os.environ["PATH"]])
        return {"PATH": path, "UV_PYTHON_PREFERENCE": "only-system"}
