"""Wheels made on the spot, and a package index on loopback that serves them and counts what is asked of it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import ssl
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from typing_extensions import Self


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    files: Mapping[str, bytes] | None = None,
    scripts: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
    headers: Sequence[str] = (),
) -> Path:
    """Write a wheel of the given files, by default one module of its name, and return where it is.

    Args:
        folder: where to.
        name, version: of the distribution.
        files: contents by path in site-packages.
        scripts: console scripts, name to ``module:function``.
        requires: its dependencies.
        headers: further lines of its metadata, such as ``License: MIT``.
    """
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    held = dict(files if files is not None else {f"{module}/__init__.py": f"VERSION = {version!r}\n".encode()})
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [*headers, *(f"Requires-Dist: {each}" for each in requires)]
    held[f"{info}/METADATA"] = "\n".join([*lines, ""]).encode()
    held[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if scripts:
        points = [f"{script} = {target}" for script, target in scripts.items()]
        held[f"{info}/entry_points.txt"] = "\n".join(["[console_scripts]", *points, ""]).encode()
    record = []
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in held.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(data)}")
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), data)
        record.append(f"{info}/RECORD,,")
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD", (2026, 1, 1, 0, 0, 0)), "\n".join([*record, ""]))
    return wheel


def repack(folder: Path, name: str) -> None:
    """Write the wheel of a distribution that is installed here, and those of all that it requires.

    What it requires elsewhere alone, on Windows or an older Python, is there in name: a lock wants it to be.
    """
    try:
        found = distribution(name)
    except PackageNotFoundError:
        make_wheel(folder, name, "99")
        return
    wheel = folder / f"{name.replace('-', '_')}-{found.version}-py3-none-any.whl"
    if wheel.exists():
        return
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in found.files or ():
            if path.parts[0] != ".." and path.suffix != ".pyc":
                archive.writestr(zipfile.ZipInfo(str(path), (2026, 1, 1, 0, 0, 0)), path.read_binary())
    for line in found.requires or ():
        requirement = Requirement(line)
        if "extra ==" not in str(requirement.marker):
            repack(folder, requirement.name)


def make_sdist(folder: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """Write a source distribution of the given files, and return where it is.

    Args:
        folder: where to.
        name, version: of the distribution.
        files: contents by path in its root; a ``PKG-INFO`` that tells nothing but name and version comes by itself.
    """
    root = f"{name.replace('-', '_')}-{version}"
    held = {"PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", **files}
    folder.mkdir(parents=True, exist_ok=True)
    sdist = folder / f"{root}.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for path, text in held.items():
            facts = tarfile.TarInfo(f"{root}/{path}")
            facts.size = len(text.encode())
            archive.addfile(facts, io.BytesIO(text.encode()))
    return sdist


class Index:
    """Serves a folder of distributions as a simple index (PEP 691, with metadata files of PEP 658); use it in a ``with``.

    Args:
        folder: the wheels and sdists.
        login: name and password that every request must bring; none where not given.
        uploaded: when each file was uploaded (PEP 700), by its name; told of none where not given.
        latency_s: how long every answer takes at least.
        certificate: files of the certificate and its key, where it is served by https.

    Each folder in it is an index of its own, below `torch_url`.

    Attributes:
        asked: how often each file was asked for: ``whole``, ``part`` (a range), ``head`` or ``metadata``, and its name;
            ``page`` and a project's name for its listing.
        sent: bytes of wheels sent.
    """

    def __init__(
        self,
        folder: Path,
        *,
        login: tuple[str, str] | None = None,
        uploaded: Mapping[str, str] | None = None,
        latency_s: float = 0.0,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.latency_s = latency_s
        self.folder = folder
        self.uploaded = uploaded or {}
        self.authorization = f"Basic {base64.b64encode(':'.join(login).encode()).decode()}" if login else None
        self.asked: Counter[tuple[str, str]] = Counter()
        self.sent = 0
        self._guard = threading.Lock()
        handler = type("Handler", (_Handler,), {"index": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._scheme = "https" if certificate else "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """The address for ``index-url``."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}/simple"

    @property
    def torch_url(self) -> str:
        """The address for ``torch-index-url``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/whl"

    @property
    def whole(self) -> dict[str, int]:
        """How often each wheel was downloaded."""
        return {name: count for (kind, name), count in self.asked.items() if kind == "whole"}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def note(self, kind: str, name: str, size: int = 0) -> None:
        """Count a request."""
        with self._guard:
            self.asked[kind, name] += 1
            self.sent += size

    def files(self, project: str, backend: str = "") -> list[Path]:
        """The wheels and sdists of a project."""
        folder = self.folder / backend
        wheels = [each for each in sorted(folder.glob("*.whl")) if parse_wheel_filename(each.name)[0] == project]
        sdists = folder.glob("*.tar.gz")
        return [*wheels, *(each for each in sorted(sdists) if parse_sdist_filename(each.name)[0] == project)]


class Server(ThreadingHTTPServer):
    """A server on loopback, for many clients at once."""

    # By itself it lets five wait; whoever else comes at that moment tries again a second later.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that have what they want hang up."""


class _Handler(BaseHTTPRequestHandler):
    index: Index
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(self.index.latency_s)
        if self.index.authorization and self.headers.get("Authorization") != self.index.authorization:
            self.index.note("refused", self.path.rpartition("/")[2])
            self._answer(b"", status=401, headers={"WWW-Authenticate": 'Basic realm="index"'})
            return
        kind, _, name = unquote(self.path).strip("/").partition("/")
        if kind == "simple":
            self._page(str(canonicalize_name(name)))
        elif kind == "whl":
            backend, _, project = name.partition("/")
            self._page(str(canonicalize_name(project)), backend)
        elif name.endswith(".metadata"):
            self.index.note("metadata", name.removesuffix(".metadata"))
            self._answer(_metadata(self.index.folder / name.removesuffix(".metadata")))
        else:
            self._file(self.index.folder / name)

    def do_HEAD(self) -> None:
        self.index.note("head", self.path.rpartition("/")[2])
        self._answer(b"", status=405)

    def _page(self, project: str, backend: str = "") -> None:
        self.index.note("page", project)
        files = [self._facts(file) for file in self.index.files(project, backend)]
        page = {"meta": {"api-version": "1.1"}, "name": project, "files": files}
        self._answer(
            json.dumps(page).encode(),
            status=200 if files else 404,
            headers={"Content-Type": "application/vnd.pypi.simple.v1+json"},
        )

    def _facts(self, file: Path) -> dict[str, object]:
        facts: dict[str, object] = {
            "filename": file.name,
            "url": f"/files/{quote(str(file.relative_to(self.index.folder)))}",
            "hashes": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
            "size": file.stat().st_size,
        }
        if file.suffix == ".whl":
            facts["core-metadata"] = {"sha256": hashlib.sha256(_metadata(file)).hexdigest()}
        if file.name in self.index.uploaded:
            facts["upload-time"] = self.index.uploaded[file.name]
        return facts

    def _file(self, wheel: Path) -> None:
        data = wheel.read_bytes()
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"ETag": tag, "Cache-Control": "max-age=365000000, immutable, public"}
        if self.headers.get("If-None-Match") == tag:  # As the public index answers it.
            self.index.note("unchanged", wheel.name)
            self._answer(b"", status=304, headers=headers)
            return
        self.index.note("part" if "Range" in self.headers else "whole", wheel.name, len(data))
        self._answer(data, headers=headers)

    def _answer(self, data: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def _metadata(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")))
