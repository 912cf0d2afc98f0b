"""`audit`: what a vulnerability service says of locked packages, and what silence means."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Workshop

ADVISORY = {
    "id": "GHSA-0000-0000-0001",
    "summary": "Reads what it should not",
    "modified": "2026-01-01T00:00:00Z",
    "published": "2026-01-01T00:00:00Z",
    "aliases": ["CVE-2026-1"],
    "affected": [
        {
            "package": {"name": "thing", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


class _Service(BaseHTTPRequestHandler):
    """A vulnerability service in the form of OSV that knows one advisory, about `thing`."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        known = [{"id": ADVISORY["id"], "modified": ADVISORY["modified"]}]
        self._answer({"results": [{"vulns": known} if q["package"]["name"] == "thing" else {} for q in asked]})

    def do_GET(self) -> None:
        self._answer(ADVISORY)

    def _answer(self, document: object) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    """The address of a vulnerability service."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def shop(workshop: Workshop, tmp_path: Path) -> Iterator[Workshop]:
    """Two plugins, one of which needs `thing`."""
    make_wheel(tmp_path / "wheels", "thing")
    with Index(tmp_path / "wheels") as index:
        workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        workshop.plugin("alpha", dependencies=("thing",))
        workshop.plugin("beta")
        assert workshop.within("lock", "-q").status == 0
        yield workshop


def test_what_is_known_of_a_package_is_a_problem(shop: Workshop, service: str) -> None:
    """The finding names package, advisory, aliases and the version that mends it; an accepted one is not told."""
    ran = shop.within("audit", "--service-url", service, "--format", "json")
    assert (ran.status, ran.codes) == (1, ["vulnerable"])
    result = ran.json["result"]
    assert isinstance(result, dict)
    assert result["plugins"] == [{"plugin": "alpha", "state": "vulnerable"}, {"plugin": "beta", "state": "ok"}]
    said = str(ran.json["problems"])
    assert "thing 1.0: GHSA-0000-0000-0001 (CVE-2026-1): Reads what it should not; fixed in 2.0" in said
    assert "--upgrade-package thing alpha" in said
    ran = shop.within("audit", "--service-url", service, "--ignore", "GHSA-0000-0000-0001")
    assert ran.status == 0
    assert "2 of 2 locks" in ran.out


@pytest.mark.parametrize("arguments", [["--service-url", "http://127.0.0.1:9/"], ["--offline"]])
def test_silence_is_not_fine(shop: Workshop, arguments: list[str]) -> None:
    """A service that cannot be reached, or may not be, leaves every plugin unknown, told once; the exit status is 1."""
    ran = shop.within("audit", *arguments, "--format", "json", env={"UV_HTTP_RETRIES": "0"})
    assert (ran.status, ran.codes) == (1, ["audit-unknown"])
    assert "alpha, beta: " in str(ran.json["problems"])
