"""The reason of a failed build: the line that says it, with all that was written in a file."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from workshop import BACKEND, Workshop

from envbuilder.build_errors import reason

SYNTAX = """
Traceback (most recent call last):
  File "<string>", line 8, in <module>
  File "setup.py", line 2
    x = = 1
        ^
SyntaxError: invalid syntax
"""
COMPILER = """
running build_ext
a.c:1:10: fatal error: nope.h: No such file or directory
    1 | #include <nope.h>
      |          ^~~~~~~~
compilation terminated.
error: command '/usr/bin/gcc' failed with exit code 1
"""
CMAKE = """
-- The C compiler identification is GNU
CMake Error at CMakeLists.txt:3 (find_package):
  Could not find a package configuration file provided by Torch

-- Configuring incomplete, errors occurred!
Traceback (most recent call last):
  File "b.py", line 3, in build_wheel
subprocess.CalledProcessError: Command 'cmake' returned non-zero exit status 1.
"""
RUST = """
   Compiling tokenizers v0.15.0
error[E0425]: cannot find value `x` in this scope
 --> src/lib.rs:1:1
error: could not compile `tokenizers` (lib) due to 1 previous error
"""
CHAINED = """
Traceback (most recent call last):
  File "a.py", line 1, in <module>
ImportError: libcudart.so.12: cannot open shared object file: No such file or directory

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "b.py", line 9, in <module>
RuntimeError: the CUDA toolkit is needed
  ~~~~~~~^
"""


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (SYNTAX, "setup.py:2: SyntaxError: invalid syntax: x = = 1"),
        (COMPILER, "a.c:1:10: fatal error: nope.h: No such file or directory"),
        (CMAKE, "CMake Error at CMakeLists.txt:3 (find_package): Could not find a package configuration file provided"),
        (RUST, "error[E0425]: cannot find value `x` in this scope"),
        (CHAINED, "RuntimeError: the CUDA toolkit is needed"),
        ("Traceback (most recent call last):\nModuleNotFoundError: No module named 'torch'\n", "ModuleNotFoundError"),
        ("CUDA_HOME is not set\n   ^^^\n\n", "CUDA_HOME is not set"),
        ("\n ^ \n", ""),
    ],
    ids=["syntax", "compiler", "cmake", "rust", "chained", "module", "words", "nothing"],
)
def test_the_line_that_says_why_is_chosen(output: str, said: str) -> None:
    """Of compilers, CMake, Rust and Python the line with the cause is taken, never one of carets."""
    assert reason(output.splitlines()).startswith(said)


LONG = """
import sys
for number in range(400):
    print("compiling", number, file=sys.stderr)
print("k.cu(7): error: no such type", file=sys.stderr)
raise RuntimeError("nvcc failed")
"""
FAULTS = {
    "syntax": ("x = = 1\n", "SyntaxError: invalid syntax: x = = 1"),
    "module": ("import absent_module\n", "ModuleNotFoundError: No module named 'absent_module'"),
    "exit": ("import sys\nprint('error: needs CUDA_HOME', file=sys.stderr)\nsys.exit(3)\n", "error: needs CUDA_HOME"),
    "long": (LONG, "k.cu(7): error: no such type"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dynamic", [True, False], ids=["metadata", "wheel"])
def test_a_build_that_fails_gives_its_cause_and_its_log(workshop: Workshop, fault: str, *, dynamic: bool) -> None:
    """Metadata or wheel: the message has the cause in a line, and names the file with everything that was written."""
    code, said = FAULTS[fault]
    text = '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n[project]\n'
    facts = 'name = "alpha"\ndynamic = ["version"]\n' if dynamic else 'name = "alpha"\nversion = "0.1.0"\n'
    workshop.plugin("alpha", pyproject=text + facts, backend=code + (BACKEND if fault != "syntax" else ""))
    if dynamic:
        ran = workshop.within("lock")
    else:
        assert workshop.within("lock", "-q").status == 0
        ran = workshop.within("build")
    assert ran.status == 1
    assert said in " ".join(ran.err.split()), ran.err
    assert len(ran.err.splitlines()) < 40
    log = Path(next(word for word in shlex.split(ran.err, comments=False, posix=False) if word.endswith(".log")))
    shown = subprocess.run(["cat", log], capture_output=True, text=True, check=True).stdout
    assert said.rpartition(": ")[2] in shown


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "Traceback\n  File \"a\", line 1\nModuleNotFoundError: No module named 'torch'\n",
            "ModuleNotFoundError: No module named 'torch'",
        ),
        (
            "gcc -c a.c\na.c:7:10: fatal error: cuda.h: No such file or directory\n 7 | #\nerror: command '/usr/bin/gcc' failed with exit code 1",
            "a.c:7:10: fatal error: cuda.h: No such file or directory",
        ),
        (
            "-- The C compiler\nCMake Error at CMakeLists.txt:3 (find_package):\n  Could not find CUDA\n\n-- Configuring incomplete\n",
            "CMake Error at CMakeLists.txt:3 (find_package): Could not find CUDA",
        ),
        (
            "error[E0425]: cannot find value `x`\n --> src/lib.rs:1:1\nerror: could not compile `a`\nsubprocess.CalledProcessError: returned 101",
            "error[E0425]: cannot find value `x`",
        ),
        (
            "/usr/bin/ld: cannot find -lcuda\ncollect2: error: ld returned 1 exit status",
            "/usr/bin/ld: cannot find -lcuda",
        ),
        (
            "RuntimeError: no nvcc\nsubprocess.CalledProcessError: Command 'x' returned non-zero exit status 1.",
            "RuntimeError: no nvcc",
        ),
        ("one\ntwo\n   ^", "two"),
        ("^", ""),
    ],
)
def test_no_wrapper_and_no_mark_is_taken_for_the_reason(output: str, said: str) -> None:
    """Compilers, CMake, Rust and Python; a mark under a line of code is no reason."""
    assert reason([line for line in output.splitlines() if line.strip()]) == said
