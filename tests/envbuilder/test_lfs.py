"""Git LFS: pointers are never taken for content, and content is fetched where the entry says so."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from workshop import BACKEND, Ran, Workshop

CONTENT = b"weights" * 1000
OID = hashlib.sha256(CONTENT).hexdigest()
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize {len(CONTENT)}\n"
# It packs what lies beside the code, too.
PACKS_ALL = (
    BACKEND.replace('rglob("*.py")', 'rglob("*.*")')
    .replace("path.read_text()", "path.read_bytes()")
    .replace("data = text.encode()", "data = text if isinstance(text, bytes) else text.encode()")
)
CODE = 'import pathlib\nSIZE = pathlib.Path(__file__).with_name("weights.bin").stat().st_size\nclass Model:\n    pass\n'

needs_lfs = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")


def heavy(workshop: Workshop, *, lfs: bool, where: str = "src/alpha") -> None:
    """Plugin `alpha`, whose weights are a pointer in git and lie in its mirror's LFS folder."""
    remote = workshop.remotes / "alpha.git"
    workshop.git("init", "--quiet", "--initial-branch", "main", str(remote))
    (remote / where).mkdir(parents=True)
    (remote / where / "weights.bin").write_text(POINTER)
    place = remote / ".git" / "lfs" / "objects" / OID[:2] / OID[2:4] / OID
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    (remote / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    workshop.release("alpha", "v0.1.0", backend=PACKS_ALL, code=CODE)
    source = {"git": "https://git.example.org/alpha.git", "tag": "v0.1.0"}
    workshop.entry("alpha", source={**source, "lfs": True} if lfs else source)


def problem(ran: Ran) -> dict[str, str]:
    """The one problem that a command tells."""
    found = ran.json["problems"]
    assert isinstance(found, list)
    (one,) = found
    assert isinstance(one, dict)
    return one


def size(workshop: Workshop, env: dict[str, str]) -> str:
    """The size of the weights in the environment."""
    return workshop.run("exec", "alpha", "--", "python", "-c", "import alpha; print(alpha.SIZE)", env=env).out.strip()


def test_pointers_are_found_by_check_and_build(workshop: Workshop) -> None:
    """An installed pointer is an error of check, with the file and the key that fetches it; nothing is built of it."""
    heavy(workshop, lfs=False)
    assert workshop.within("lock", "-q").status == 0
    told = problem(workshop.within("check", "--format", "json"))
    assert (told["code"], told["entry"]) == ("lfs-pointer", "alpha")
    assert "src/alpha/weights.bin" in told["message"]
    assert "lfs: true" in told["hint"]
    told = problem(workshop.within("build", "--format", "json"))
    assert (told["code"], told["entry"]) == ("lfs-pointer", "alpha")
    assert "alpha/weights.bin of alpha" in told["message"]
    assert not (workshop.work / ".envbuilder" / "envs" / "prod" / "alpha").exists()


def test_pointers_of_older_names_are_found(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git LFS still reads pointers that it wrote under its first names, and so does check."""
    monkeypatch.setitem(globals(), "POINTER", POINTER.replace("git-lfs.github.com", "hawser.github.com"))
    heavy(workshop, lfs=False)
    assert workshop.within("lock", "-q").status == 0
    assert workshop.within("check", "--format", "json").codes == ["lfs-pointer"]


def test_pointers_in_a_submodule_are_found(workshop: Workshop) -> None:
    """A submodule among the code is installed with it, so check looks into it, too."""
    heavy(workshop, lfs=False, where="weights")
    (workshop.remotes / "alpha.git").rename(workshop.remotes / "model.git")
    workshop.release("alpha", "v0.1.0")
    remote = str(workshop.remotes / "alpha.git")
    model = str(workshop.remotes / "model.git")
    workshop.git("-C", remote, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", model, "src/model")
    address = "https://git.example.org/model.git"
    workshop.git("-C", remote, "config", "--file", ".gitmodules", "submodule.src/model.url", address)
    workshop.git("-C", remote, "commit", "--quiet", "--all", "--message", "more")
    workshop.git("-C", remote, "tag", "--force", "--annotate", "--message", "v", "v0.1.0")
    assert workshop.within("lock", "-q").status == 0
    told = problem(workshop.within("check", "--format", "json"))
    assert (told["code"], "src/model/weights/weights.bin" in told["message"]) == ("lfs-pointer", True)


def test_pointers_of_tests_are_no_matter(workshop: Workshop) -> None:
    """What is in LFS and is not installed keeps nobody from anything."""
    heavy(workshop, lfs=False, where="tests/data")
    assert workshop.within("lock", "-q").status == 0
    assert workshop.within("check", "--format", "json").codes == []


def test_pointers_below_a_plugin_are_found(workshop: Workshop) -> None:
    """A dependency by git that installs a pointer is told with the way to it."""
    heavy(workshop, lfs=False)
    (workshop.registry / "alpha.yaml").unlink()
    workshop.plugin("beta", dependencies=("alpha @ git+https://git.example.org/alpha.git@v0.1.0",))
    assert workshop.within("lock", "-q").status == 0
    told = problem(workshop.within("check", "--format", "json"))
    assert (told["code"], told["entry"]) == ("lfs-pointer", "beta")
    assert told["message"].startswith("beta → alpha: ")


@needs_lfs
@pytest.mark.parametrize("form", ["{}.git", "{}.bundle"])
def test_content_is_fetched_through_mirrors_and_bundles(workshop: Workshop, form: str) -> None:
    """With `lfs: true` the content is installed, from folders and bundles as mirrors, and offline from a bundle of ours."""
    heavy(workshop, lfs=True)
    remote = workshop.remotes / "alpha.git"
    if form.endswith(".bundle"):
        workshop.git("-C", str(remote), "bundle", "create", "--quiet", str(workshop.remotes / "alpha.bundle"), "--all")
        shutil.copytree(remote / ".git" / "lfs", workshop.remotes / "alpha.lfs")
        remote.rename(workshop.root / "away")
    env = {"UV_CACHE_DIR": str(workshop.root / "cache")}
    locked = workshop.within("lock", env=env)
    assert locked.status == 0, locked.err
    assert "lfs=true" in (workshop.work / "profiles" / "prod" / "alpha" / "uv.lock").read_text()
    assert workshop.within("check", "--format", "json", env=env).codes == []
    built = workshop.within("build", env=env)
    assert built.status == 0, built.err
    assert size(workshop, env) == str(len(CONTENT))
    file = str(workshop.root / "all.bundle")
    made = workshop.within("bundle", "create", file, env=env)
    assert made.status == 0, made.err
    shutil.rmtree(workshop.work / ".envbuilder")
    shutil.rmtree(workshop.remotes)
    env = {"UV_CACHE_DIR": str(workshop.root / "third")}
    assert workshop.within("bundle", "restore", file, env=env).status == 0
    # The objects came along, not only what was built of them.
    shutil.rmtree(workshop.root / "third")
    built = workshop.within("build", "--offline", env=env)
    assert built.status == 0, built.err
    assert size(workshop, env) == str(len(CONTENT))


class Server(BaseHTTPRequestHandler):
    """The part of the LFS protocol that a download needs (git-lfs, docs/api/batch.md)."""

    def do_POST(self) -> None:
        """Say where each object is."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        place = f"http://127.0.0.1:{self.server.server_port}/file"  # type: ignore[attr-defined]
        told = [{**each, "actions": {"download": {"href": place}}} for each in asked["objects"]]
        self._say(json.dumps({"transfer": "basic", "objects": told}).encode(), "application/vnd.git-lfs+json")

    def do_GET(self) -> None:
        """Give the one object."""
        self._say(CONTENT, "application/octet-stream")

    def _say(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@needs_lfs
def test_content_is_fetched_from_a_server(workshop: Workshop) -> None:
    """What a mirror does not have comes by git-lfs from the server that the commit's `.lfsconfig` names."""
    heavy(workshop, lfs=True)
    remote = workshop.remotes / "alpha.git"
    shutil.rmtree(remote / ".git" / "lfs")
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (remote / ".lfsconfig").write_text(f"[lfs]\n\turl = http://127.0.0.1:{server.server_port}/\n")
        workshop.release("alpha", "v0.2.0", version="0.2.0", backend=PACKS_ALL, code=CODE)
        source = {"git": "https://git.example.org/alpha.git", "tag": "v0.2.0", "lfs": True}
        workshop.entry("alpha", source=source)
        env = {"UV_CACHE_DIR": str(workshop.root / "cache")}
        locked = workshop.within("lock", env=env)
        server.shutdown()
    assert locked.status == 0, locked.err
    # All of it is here now.
    assert workshop.within("build", env=env).status == 0
    assert size(workshop, env) == str(len(CONTENT))


@needs_lfs
def test_content_that_is_gone_is_told(workshop: Workshop) -> None:
    """An object that nobody has, or that was damaged, is one error with file and mirror."""
    heavy(workshop, lfs=True)
    (workshop.remotes / "alpha.git" / ".git" / "lfs" / "objects" / OID[:2] / OID[2:4] / OID).write_bytes(b"x" * 7000)
    told = problem(workshop.within("lock", "--format", "json"))
    assert told["code"] == "lfs-missing"
    assert "src/alpha/weights.bin" in told["message"]


def test_git_lfs_that_is_not_there_is_one_error(workshop: Workshop) -> None:
    """Without git-lfs an entry that needs it is refused with the command that installs it."""
    heavy(workshop, lfs=True)
    tools = workshop.root / "tools"
    tools.mkdir()
    for name in ("git", "sh", "env"):
        (tools / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    told = problem(workshop.within("lock", "--format", "json", env={"PATH": str(tools)}))
    assert told["code"] == "tool-missing"
    assert told["hint"].startswith("apt-get install git-lfs")


def test_add_asks_for_what_is_in_lfs(workshop: Workshop) -> None:
    """An entry of a package whose code is in LFS is written with the key that fetches it."""
    heavy(workshop, lfs=False)
    (workshop.registry / "alpha.yaml").unlink()
    words = ("add", "alpha", "--git", "https://git.example.org/alpha.git", "--tag", "v0.1.0", "--library")
    added = workshop.within(*words)
    assert added.status == 0, added.err
    assert "lfs: true" in (workshop.registry / "alpha.yaml").read_text()
