"""Who signed a tag: git's own verification, against keys of the workspace instead of a person's."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from envbuilder import process
from envbuilder.errors import ConfigError, Problem
from envbuilder.git import Repository
from envbuilder.models import Workspace

_SSH, _PGP, _X509 = "-----BEGIN SSH SIGNATURE", "-----BEGIN PGP SIGNATURE", "-----BEGIN SIGNED MESSAGE"
_SSH_GOOD = re.compile(r'^Good "git" signature (?:for (?P<who>.+) )?with \S+ key (?P<key>\S+)$', re.MULTILINE)
_GPG_FAULTS = {
    "EXPKEYSIG": "its key has expired",
    "REVKEYSIG": "its key was revoked",
    "EXPSIG": "it has expired",
    "BADSIG": "it does not fit what the tag says",
}


@dataclass(frozen=True)
class Signature:
    """What is known of a tag's signature.

    Attributes:
        state: ``good``, ``none``, ``unknown`` (nobody allowed made it, or nothing here can tell) or ``bad``.
        text: the signer of a good one, as in ``pins.toml``; else what is wrong, for people.
        kind: ``ssh`` or ``gpg`` where there is one.
    """

    state: str
    text: str
    kind: str = ""

    @property
    def recorded(self) -> str:
        """The state as ``pins.toml`` holds it."""
        return self.text if self.state == "good" else self.state


def is_good(recorded: str) -> bool:
    """Whether a state in ``pins.toml`` is that of a good signature."""
    return recorded.startswith(("ssh:", "gpg:"))


def read(repository: Repository, name: str, tag: str, workspace: Workspace) -> Signature:
    """What the signature of a tag is worth.

    Args:
        repository: the clone that holds it.
        name: the tag object's digest.
        tag: what the tag is called; an object that was signed under another name proves nothing of this one.
        workspace: whose signers and keys count.

    Raises:
        ConfigError: the workspace's signers or keys cannot be read.
    """
    text = repository.tag_text(name)
    if text is None:
        return Signature("none", "it is lightweight: a name for a commit, which cannot be signed")
    kind = next((kind for mark, kind in ((_SSH, "ssh"), (_PGP, "gpg"), (_X509, "x509")) if mark in text), "")
    if not kind:
        return Signature("none", "it is annotated, but not signed")
    if f"\ntag {tag}\n" not in text.partition("\n\n")[0] + "\n":
        return Signature("bad", "its signature is another tag's", kind)
    program = {"ssh": "ssh-keygen", "gpg": "gpg"}.get(kind)
    if program is None or shutil.which(program) is None:
        return Signature("unknown", f"nothing here can verify it: {program or 'X.509 is not known'}", kind)
    return _ssh(repository, name, workspace) if kind == "ssh" else _gpg(repository, name, workspace)


def _ssh(repository: Repository, name: str, workspace: Workspace) -> Signature:
    signers = _there(workspace, workspace.allowed_signers, "allowed-signers") or Path(os.devnull)
    settings = {"gpg.ssh.allowedSignersFile": str(signers), "gpg.ssh.program": "ssh-keygen"}
    done = repository.verify_tag(name, settings, {})
    found = _SSH_GOOD.search(done.stderr)
    if found is None:
        return Signature("bad", "its signature does not fit what the tag says", "ssh")
    signer = f"ssh:{found['key']}"
    if done.ok and found["who"]:
        return Signature("good", f"{signer} {found['who']}", "ssh")
    return Signature("unknown", f"its signer, {signer}, is not allowed", "ssh")


def _gpg(repository: Repository, name: str, workspace: Workspace) -> Signature:
    with _keyring(_there(workspace, workspace.allowed_keys, "allowed-keys")) as env:
        done = repository.verify_tag(name, {"gpg.program": "gpg", "gpg.minTrustLevel": "undefined"}, env)
    marks = dict(re.findall(r"^\[GNUPG:\] (\w+) ?(.*)$", done.stderr, re.MULTILINE))
    if done.ok and "GOODSIG" in marks and "VALIDSIG" in marks:
        return Signature("good", f"gpg:{marks['VALIDSIG'].split()[-1]} {marks['GOODSIG'].partition(' ')[2]}", "gpg")
    if "NO_PUBKEY" in marks:
        return Signature("unknown", f"its signer, gpg:{marks['NO_PUBKEY']}, is not allowed", "gpg")
    reason = next((words for mark, words in _GPG_FAULTS.items() if mark in marks), "it cannot be verified")
    return Signature("bad", f"its signature is bad: {reason}", "gpg")


@contextmanager
def _keyring(keys: Path | None) -> Iterator[Mapping[str, str]]:
    """Variables that give gpg a keyring of those keys alone."""
    with tempfile.TemporaryDirectory(prefix="envbuilder-gpg-") as home:
        # Without this file a newer gpg makes one that starts a daemon.
        (Path(home) / "common.conf").touch()
        env = {"GNUPGHOME": home}
        files = sorted(path for path in keys.iterdir() if path.is_file()) if keys and keys.is_dir() else [keys]
        for file in filter(None, files):
            words: list[str | Path] = ["gpg", "--batch", "--quiet", "--no-autostart", "--import", "--", file]
            done = process.run(words, env=process.tool_environment(env), timeout_s=60)
            if not done.ok:
                lines = done.stderr.strip().splitlines() or ["no key in it"]
                problem = Problem("config-invalid", f"no GPG key: {lines[0]}", where=str(file), hint=f"gpg {file}")
                raise ConfigError([problem])
        yield env


def _there(workspace: Workspace, path: Path | None, setting: str) -> Path | None:
    if path is None or path.exists():
        return path
    message = f"tool.envbuilder.{setting}: no such file: {workspace.show(path)}"
    raise ConfigError([Problem("config-invalid", message, where="pyproject.toml", hint=f"ls -l {path.parent}")])
