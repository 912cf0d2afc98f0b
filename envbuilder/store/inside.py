"""Runs inside new environments, as the text of ``python -c``: proves an import, and keeps what that compiles.

Bytecode goes to, and comes from, a store that all environments share, under the digest of its source. It is checked
bytecode (PEP 552): Python compares a hash of the source before it uses it, so that an edited file never meets the
bytecode of what it was, whatever its size and time say.

Imports nothing of ours, and of the standard library only what is there at the start: until bytecode of it is kept,
each module of it would be compiled anew.

Arguments: ``module:attribute`` or nothing; the shared folder; the folder for what is new; a file with the paths of
sources to compile, or nothing; the word that proves that the attribute was reached.

The word is written to what was the standard output, and by this process alone: an exit status of 0 is no proof, for
whatever is imported may end the process, and what it prints goes to the standard error.
"""

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

try:
    sha256: "Any" = __import__("_sha256").sha256
except ImportError:
    try:
        sha256 = __import__("_sha2").sha256  # Since Python 3.12.
    except ImportError:
        sha256 = None

# The machinery of imports, under the names that need no import.
imp: "Any" = sys.modules["_imp"]
machinery: "Any" = sys.modules["_frozen_importlib_external"]

_CHECKED = (3).to_bytes(4, "little")  # PEP 552: by hash, and checked.


class Bytecode:
    """The compiling of a process, with a store of what was compiled elsewhere.

    Args:
        shared: a folder of bytecode by digest of the source; empty where none of it is to be used.
        fresh: where what is compiled here goes; whoever started this moves it over once the disk has it.
    """

    def __init__(self, shared: str, fresh: str) -> None:
        self._shared = shared
        self._fresh = fresh
        self._compile = machinery.SourceFileLoader.source_to_code

    def install(self) -> None:
        """Have every import of this process use the store, and Python itself write no bytecode."""
        bytecode = self

        def source_to_code(self: "Any", data: "Any", path: str, *, _optimization: int = -1) -> "Any":
            # Loaders that derive from it may hand in other text than the file's.
            if type(self) is machinery.SourceFileLoader and type(data) is bytes and _optimization == -1:
                return bytecode.code(self, data, os.fspath(path))
            return bytecode._compile(self, data, path, _optimization=_optimization)

        machinery.SourceFileLoader.source_to_code = source_to_code
        sys.dont_write_bytecode = True

    def code(self, loader: object, data: bytes, path: str) -> "CodeType":
        """What a file's bytes compile to; its bytecode lies where Python looks for it afterwards."""
        name = sha256(data).hexdigest() + ".pyc"
        magic = machinery.MAGIC_NUMBER
        head = magic + _CHECKED + imp.source_hash(int.from_bytes(magic, "little"), data)
        kept = os.path.join(self._shared, name)
        code = _read(kept, head) if self._shared else None
        if code is None:
            code = self._compile(loader, data, path)
            kept = _write(os.path.join(self._fresh, name), head + marshal.dumps(code))
        else:
            imp._fix_co_filename(code, path)
        if kept:
            _link(kept, machinery.cache_from_source(path))
        return code


def _read(file: str, head: bytes) -> "CodeType | None":
    try:
        with open(file, "rb") as stream:
            data = stream.read()
        if data[:16] == head:
            code: "CodeType" = marshal.loads(memoryview(data)[16:])
            return code
    except OSError:
        return None
    except (EOFError, ValueError, TypeError):
        pass
    try:
        os.unlink(file)  # Cut off: what is compiled now takes its place.
    except OSError:
        pass
    return None


def _write(file: str, data: bytes) -> str:
    part = f"{file}.{os.getpid()}"
    try:
        with open(part, "wb") as stream:
            stream.write(data)
        os.replace(part, file)
    except OSError:  # Bytecode only saves time.
        return ""
    return file


def _link(kept: str, place: str) -> None:
    try:
        try:
            os.link(kept, place)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.link(kept, place)
    except OSError:
        pass


def _compile_all(bytecode: Bytecode, listing: str) -> None:
    with open(listing, encoding="utf-8") as stream:
        paths = stream.read().split("\0")
    for path in paths:
        loader = machinery.SourceFileLoader("", path)
        try:
            with open(path, "rb") as stream:
                bytecode.code(loader, stream.read(), path)
        except (OSError, SyntaxError, ValueError, RecursionError):
            pass  # Templates, tests of parsers: what cannot be compiled cannot be imported.


def reach(entry: str) -> None:
    """Import an entry point.

    Raises:
        ImportError: importing it asks the process to end.
        TypeError: it is nothing that can be called.
    """
    module, _, name = entry.partition(":")
    try:
        __import__(module)
        found = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
    except SystemExit as error:
        raise ImportError("importing it calls sys.exit(%r)" % (error.code,)) from error
    if not callable(found):
        raise TypeError("expected a class, found %s" % type(found).__name__)


def main(entry: str, shared: str, fresh: str, listing: str, word: str) -> None:
    """Import an entry point and prove it, or compile a list of files."""
    if sys.path[:1] == [""]:
        del sys.path[0]  # The folder that a build is started from is no part of the environment.
    process, proof = os.getpid(), os.dup(1)  # A copy by dup() is closed in programs that a plugin starts.
    os.dup2(2, 1)
    bytecode = Bytecode(shared, fresh)
    usable = sha256 is not None and not sys.flags.optimize
    if listing:
        if usable:
            _compile_all(bytecode, listing)
        return
    if usable and fresh:
        bytecode.install()
    reach(entry)
    if os.getpid() == process:
        try:
            os.write(proof, word.encode())
        except OSError as error:
            raise ImportError("importing it closes descriptors of the process that are not its own") from error


if __name__ == "__main__":
    arguments = sys.argv[1:]
    del sys.argv[1:]
    main(*arguments)
