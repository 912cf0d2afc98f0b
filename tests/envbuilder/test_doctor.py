"""`doctor`: what it looks at, and that each complaint comes with a remedy."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from local_index import Index, make_wheel
from workshop import PYTHON, Ran, Workshop


def judged(ran: Ran) -> dict[str, tuple[str, str]]:
    """State and words for each thing looked at, by the first word of its name; the last, where there are several."""
    result = ran.json["result"]
    assert isinstance(result, dict)
    for each in result["findings"]:
        assert (each["state"] == "ok") == (each["remedy"] is None)
    states = {each["state"] for each in result["findings"]}
    assert ran.status == (1 if "fail" in states else 0)
    return {each["what"].split()[0]: (each["state"], each["found"]) for each in result["findings"]}


def states(workshop: Workshop, **env: str) -> tuple[int, dict[str, str]]:
    """The exit status, and the state of each thing looked at."""
    ran = workshop.run("doctor", "--offline", "--format", "json", env=env)
    return ran.status, {what: state for what, (state, _) in judged(ran).items()}


def test_doctor_is_content_with_a_whole_machine(workshop: Workshop) -> None:
    """Where everything is there, every line is ok (the disk may be low), and the exit status is 0."""
    workshop.plugin("alpha")
    workshop.entry("beta", python=f"=={PYTHON}.*")
    with Index(workshop.root / "wheels") as index:
        for profile in ("prod", "dev"):
            workshop.write(f"profiles/{profile}/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        workshop.release("beta", "v0.1.0")
        assert workshop.within("lock", "-q").status == 0
        assert workshop.within("build", "-q").status == 0
        found = judged(workshop.run("doctor", "--format", "json"))
    names = ["uv", "git", "python", "gpu", "torch", "state", "disk", "links", "sizes", "guard", "leftovers", "seals"]
    # A shell may have variables that reach no build, which is a line more.
    assert [name for name in found if name != "variables"] == [*names, "remotes", "index"]
    assert {state for what, (state, _) in found.items() if what != "disk"} == {"ok"}
    assert found["python"][1].endswith(", for prod, dev")
    assert found["remotes"][1].endswith(f"{workshop.remotes}: 2 repositories answer")
    assert found["index"][1].endswith(": 1 index answers")
    assert "2 environments" in found["seals"][1]
    assert "environments " in found["sizes"][1]


def test_doctor_tells_of_a_git_that_is_missing_or_old_and_of_another_uv(workshop: Workshop, tmp_path: Path) -> None:
    """Without a git that will do that line fails, and so does the command; a uv of another series is left alone."""
    folder = tmp_path / "bin"
    folder.mkdir()
    python = shutil.which("python3")
    assert python is not None
    (folder / "python3").symlink_to(os.path.realpath(python))
    status, found = states(workshop, PATH=str(folder))
    assert (status, found["git"]) == (1, "fail")
    for name, version in {"git": "git version 2.20.1", "uv": "uv 0.1.2"}.items():
        (folder / name).write_text(f"#!/bin/sh\necho {version}\n")
        (folder / name).chmod(0o755)
    told = judged(workshop.run("doctor", "--offline", "--format", "json", env={"PATH": str(folder)}))
    assert told["git"] == ("fail", f"2.20.1 ({folder}/git); expected 2.31 or later")
    assert told["uv"][0] == "ok"
    assert told["uv"][1].endswith(f"; {folder}/uv 0.1.2 is of another series, and is left alone")


def test_doctor_warns_where_files_must_be_copied(workshop: Workshop) -> None:
    """A cache and a store on different file systems: a warning with the way out, and still exit status 0."""
    other = Path("/dev/shm")  # noqa: S108 - a second file system, which is what this is about
    if not other.is_dir() or other.stat().st_dev == workshop.root.stat().st_dev:
        pytest.skip("no second file system at hand")
    cache = other / f"envbuilder-test-{os.getpid()}"
    try:
        status, found = states(workshop, UV_CACHE_DIR=str(cache))
        assert (status, found["links"]) == (0, "warn")
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def test_doctor_names_what_killed_commands_left(workshop: Workshop) -> None:
    """A build's staging folder, git's lock and an environment without its seal; what somebody works on is none of them."""
    state = workshop.work / ".envbuilder"
    for folder in ("store/.staging/alpha-1", "store/.staging/busy-1", "store/alpha-2", "git/alpha.git/refs"):
        (state / folder).mkdir(parents=True)
    (state / "git/alpha.git/packed-refs.lock").touch()
    (state / "locks").mkdir()
    with (state / "locks/env-busy-1").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = judged(workshop.within("doctor", "--offline", "--format", "json"))
        text = workshop.within("doctor", "--offline").out
    assert "1 left by builds that were killed: store/.staging/alpha-1\n      hint: envbuilder gc\n" in text
    assert "1 of git's locks held by nobody: git/alpha.git/packed-refs.lock\n" in text
    assert f"      hint: rm {state}/git/alpha.git/packed-refs.lock\n" in text
    assert found["seals"] == ("warn", "1 environment; 1 not as sealed: alpha-2: no seal")
    assert workshop.within("gc").status == 0
    (state / "git/alpha.git/packed-refs.lock").unlink()
    found = judged(workshop.within("doctor", "--offline", "--format", "json"))
    assert found["seals"][0] == found["leftovers"][0] == "ok"


def test_doctor_names_who_cannot_be_reached(workshop: Workshop) -> None:
    """A remote that is gone and an index that nobody serves: warnings with the command that shows the same."""
    workshop.plugin("alpha")
    workshop.entry("beta")
    workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "http://127.0.0.1:9/simple"\n')
    shutil.copy(workshop.work / "profiles/prod/profile.toml", workshop.work / "profiles/dev/profile.toml")
    ran = workshop.within("doctor", "--format", "json")
    found = judged(ran)
    assert found["remotes"][0] == found["index"][0] == "warn"
    assert "1 of 2 repositories cannot be reached; https://git.example.org/beta.git: fatal: " in found["remotes"][1]
    assert (
        "127.0.0.1:9: 1 of 1 index cannot be reached; http://127.0.0.1:9/simple: ConnectionError" in found["index"][1]
    )
    text = workshop.within("doctor").out
    assert f"\n      hint: git ls-remote {workshop.remotes}/beta.git\n" in text
    assert "\n      hint: curl -sSI http://127.0.0.1:9/simple/\n" in text
    quiet = judged(workshop.within("doctor", "--offline", "--format", "json"))
    assert quiet["index"] == ("ok", "127.0.0.1:9: not asked, the network is off")


def test_doctor_trusts_whom_uv_and_git_trust(workshop: Workshop, tmp_path: Path) -> None:
    """An index whose certificate no public authority signed answers, once a variable names the one that did."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=index -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*words.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    folder = tmp_path / "trusted"
    folder.mkdir()
    shutil.copy(certificate, folder)
    subprocess.run(["openssl", "rehash", folder], check=True, capture_output=True)
    make_wheel(tmp_path / "wheels", "one", "1.0")
    nobody = dict.fromkeys(("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "")
    with Index(tmp_path / "wheels", certificate=(certificate, key)) as index:
        for name in ("prod", "dev"):
            workshop.write(f"profiles/{name}/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        found = {
            name: judged(workshop.within("doctor", "--format", "json", env={**nobody, **env}))["index"]
            for name, env in {
                "nobody": {},
                "file": {"SSL_CERT_FILE": str(certificate)},
                "folder": {"SSL_CERT_DIR": f"/nowhere:{folder}"},
            }.items()
        }
        ran = workshop.within("add", "one", "--pypi", "one==1.0", env={**nobody, "SSL_CERT_FILE": str(certificate)})
    assert "SSLError" in found["nobody"][1]
    assert found["file"][0] == found["folder"][0] == "ok"
    assert "index-unreachable" not in ran.err
    assert ("page", "one") in index.asked


def test_doctor_looks_at_machines_without_a_workspace_and_at_broken_profiles(workshop: Workshop) -> None:
    """Outside a workspace the machine alone is looked at, and nothing is written; a profile that is broken is a line."""
    found = judged(workshop.within("doctor", "--format", "json", cwd=workshop.remotes))
    assert found["workspace"][0] == "warn"
    assert found["uv"][0] == found["git"][0] == "ok"
    assert not list(workshop.remotes.iterdir())
    workshop.write("profiles/dev/profile.toml", "python = 3\n")
    found = judged(workshop.within("doctor", "--offline", "--format", "json"))
    assert found["profile"][0] == "warn"
    assert "profiles/dev/profile.toml" in found["profile"][1]
