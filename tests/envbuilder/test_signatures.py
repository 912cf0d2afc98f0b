"""Signed tags: real keys, made on the spot, against the signers that a workspace allows."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from workshop import DATES, PYTHON, Workshop

needs_gpg = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


class Signer:
    """Somebody with an ssh key or a GPG key of his own.

    Attributes:
        kind: ``ssh`` or ``gpg``.
        public: the public key as an allowed-signers line, or as an armored GPG key.
    """

    def __init__(self, folder: Path, kind: str, who: str, expired: str = "") -> None:
        folder.mkdir(mode=0o700)
        self.kind = kind
        self._env = {**os.environ, **DATES, "GNUPGHOME": str(folder)}
        if kind == "ssh":
            key = folder / "key"
            self._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", who, "-f", str(key))
            self.public = f"{who} {key.with_suffix('.pub').read_text()}"
            self._settings = ["-c", "gpg.format=ssh", "-c", f"user.signingkey={key}.pub"]
        else:
            self._run(
                *(
                    "gpg",
                    "--batch",
                    "--quiet",
                    "--passphrase",
                    "",
                    *(["--faked-system-time", expired] if expired else []),
                ),
                *("--quick-generate-key", who, "ed25519", "sign", "1d" if expired else "never"),
            )
            self.public = self._run("gpg", "--armor", "--export", who)
            self._settings = ["-c", f"user.signingkey={who}"]
            if expired:
                program = folder / "past"
                program.write_text(f'#!/bin/sh\nexec gpg --faked-system-time {expired} "$@"\n')
                program.chmod(0o755)
                self._settings += ["-c", f"gpg.program={program}"]

    def _run(self, *words: str) -> str:
        return subprocess.run(words, env=self._env, check=True, capture_output=True, text=True).stdout

    def sign(self, repository: Path, tag: str) -> None:
        """Make a tag of the same name anew, signed."""
        self._run("git", "-C", str(repository), *self._settings, "tag", "--force", "--sign", "-m", tag, tag, f"{tag}^0")

    def close(self) -> None:
        """End the agent that gpg started."""
        if self.kind == "gpg":
            subprocess.run(["gpgconf", "--kill", "all"], env=self._env, check=True, timeout=60)


SETTINGS = {"ssh": ("allowed-signers", "profiles/signers"), "gpg": ("allowed-keys", "profiles/keys")}


@pytest.fixture
def signed(workshop: Workshop) -> Workshop:
    """A workspace whose prod wants signed tags, with one plugin, which has none."""
    settings = "".join(f'{key} = "{path}"\n' for key, path in SETTINGS.values())
    workshop.settings(core={}, extra=f"[tool.envbuilder]\n{settings}")
    workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nrequire-signed-tags = true\n')
    workshop.write("profiles/signers", "")
    (workshop.work / "profiles" / "keys").mkdir()
    workshop.plugin("alpha")
    return workshop


def allow(workshop: Workshop, signer: Signer) -> None:
    """Count a signer among the workspace's."""
    path = "profiles/signers" if signer.kind == "ssh" else "profiles/keys/one.asc"
    workshop.write(path, signer.public)


def said(workshop: Workshop, *arguments: str) -> list[tuple[str, str]]:
    """Code and message of every error that check reports."""
    ran = workshop.within("check", "--format", "json", *arguments)
    problems = ran.json["problems"]
    assert isinstance(problems, list)
    found = [(each["code"], each["message"]) for each in problems if each["severity"] == "error"]
    assert ran.status == (1 if found else 0), ran.out
    assert all(each["hint"] for each in problems)
    return found


def recorded(workshop: Workshop) -> str:
    """The signature's state in pins.toml."""
    lines = (workshop.work / "profiles" / "prod" / "pins.toml").read_text().splitlines()
    return next(line.partition(" = ")[2].strip('"') for line in lines if line.startswith("signature"))


@pytest.mark.parametrize("kind", [pytest.param("ssh", marks=needs_ssh), pytest.param("gpg", marks=needs_gpg)])
def test_a_signature_counts_by_the_workspace_s_signers(signed: Workshop, tmp_path: Path, kind: str) -> None:
    """Unsigned, signed by a stranger, signed by one who is allowed: each is told, and the pin names the signer."""
    friend, stranger = (Signer(tmp_path / who, kind, f"{who}@example.org") for who in ("friend", "stranger"))
    repository = signed.remotes / "alpha.git"
    try:
        signed.within("lock", "-q")
        assert recorded(signed) == "none"
        assert said(signed) == [
            ("tag-unsigned", "tag 'v0.1.0': it is annotated, but not signed; profile prod wants signed tags")
        ]
        stranger.sign(repository, "v0.1.0")
        signed.within("lock", "-q", "--repin")
        assert recorded(signed) == "unknown"
        ((code, message),) = said(signed)
        assert code == "tag-unsigned"
        assert f"its signer, {kind}:" in message
        assert "is not allowed" in message
        friend.sign(repository, "v0.1.0")
        allow(signed, friend)
        signed.within("lock", "-q", "--repin")
        assert recorded(signed).startswith(f"{kind}:")
        assert recorded(signed).endswith(("friend@example.org", "friend@example.org>"))
        assert said(signed) == []
        shutil.rmtree(signed.work / ".envbuilder")
        assert said(signed, "--offline") == []  # By what the pin says.
        assert said(signed) == []  # By the tag object, fetched anew.
        allow(signed, stranger)
        ((code, message),) = said(signed)
        assert "is not allowed" in message
    finally:
        friend.close()
        stranger.close()


@needs_ssh
def test_a_signer_who_is_allowed_later_needs_no_repin(signed: Workshop, tmp_path: Path) -> None:
    """A pin that was locked before its signer was allowed is mended by the next lock, and nothing else changes."""
    friend = Signer(tmp_path / "friend", "ssh", "friend@example.org")
    friend.sign(signed.remotes / "alpha.git", "v0.1.0")
    signed.within("lock", "-q")
    assert recorded(signed) == "unknown"
    allow(signed, friend)
    assert said(signed) == []
    before = (signed.work / "profiles" / "prod" / "alpha" / "uv.lock").read_bytes()
    assert signed.within("lock", "-q").status == 0
    assert recorded(signed).endswith("friend@example.org")
    assert (signed.work / "profiles" / "prod" / "alpha" / "uv.lock").read_bytes() == before


@needs_ssh
@pytest.mark.parametrize("fault", ["lightweight", "changed", "another tag's"])
def test_what_proves_nothing_is_told(signed: Workshop, tmp_path: Path, fault: str) -> None:
    """A tag without an object, a changed one, and a signed object put under another name."""
    friend = Signer(tmp_path / "friend", "ssh", "friend@example.org")
    allow(signed, friend)
    repository = signed.remotes / "alpha.git"
    tag = "v0.1.0"
    if fault == "lightweight":
        signed.git("-C", str(repository), "tag", "--force", tag, f"{tag}^0")
    else:
        name = "v0.0.9" if fault == "another tag's" else tag
        signed.git("-C", str(repository), "tag", "--force", name, f"{tag}^0")
        friend.sign(repository, name)
        text = subprocess.check_output(["git", "-C", str(repository), "cat-file", "tag", name], text=True)
        if fault == "changed":
            text = text.replace("\n\nv0.1.0\n", "\n\nv0.1.0, and more\n")
        (tmp_path / "object").write_text(text)
        made = signed.git("-C", str(repository), "hash-object", "-t", "tag", "-w", str(tmp_path / "object"))
        signed.git("-C", str(repository), "update-ref", f"refs/tags/{tag}", made)
    signed.within("lock", "-q")
    assert recorded(signed) == ("none" if fault == "lightweight" else "bad")
    ((code, message),) = said(signed)
    words = {"lightweight": "it is lightweight", "changed": "does not fit", "another tag's": "another tag's"}[fault]
    assert code == "tag-unsigned"
    assert words in message


@needs_gpg
def test_an_expired_key_is_told(signed: Workshop, tmp_path: Path) -> None:
    """A signature by a key that has expired since is not good any more, and the reason is named."""
    friend = Signer(tmp_path / "friend", "gpg", "friend@example.org", expired="20200101T000000")
    try:
        friend.sign(signed.remotes / "alpha.git", "v0.1.0")
    finally:
        friend.close()
    allow(signed, friend)
    signed.within("lock", "-q")
    ((code, message),) = said(signed)
    assert code == "tag-unsigned"
    assert "its key has expired" in message


@needs_ssh
@pytest.mark.parametrize("tool", ["ssh-keygen"])
def test_without_the_tool_nothing_is_taken_for_good(signed: Workshop, tmp_path: Path, tool: str) -> None:
    """Where nothing can verify a signature, the verdict says so."""
    friend = Signer(tmp_path / "friend", "ssh", "friend@example.org")
    friend.sign(signed.remotes / "alpha.git", "v0.1.0")
    allow(signed, friend)
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("git", "sh", "uv"):
        (bare / name).symlink_to(str(shutil.which(name)))
    env = {"PATH": f"{bare}:{Path(str(shutil.which('python3'))).parent}"}
    if shutil.which(tool, path=env["PATH"]):
        pytest.skip(f"{tool} lies beside python3 here")
    ran = signed.within("check", "--format", "json", env=env)
    assert "tag-unsigned" in ran.codes
    assert f"nothing here can verify it: {tool}" in ran.out


@pytest.mark.parametrize(("fault", "code"), [("gone", "config-invalid"), ("rubbish", "config-invalid")])
@needs_gpg
def test_keys_that_are_none_are_told(signed: Workshop, tmp_path: Path, fault: str, code: str) -> None:
    """A folder of keys that is not there, and a file that holds none, are errors of the workspace's."""
    friend = Signer(tmp_path / "friend", "gpg", "friend@example.org")
    try:
        friend.sign(signed.remotes / "alpha.git", "v0.1.0")
    finally:
        friend.close()
    if fault == "gone":
        (signed.work / "profiles" / "keys").rmdir()
    else:
        signed.write("profiles/keys/one.asc", "hello")
    assert code in signed.within("check", "--format", "json").codes


def test_profiles_that_do_not_ask_are_not_told(workshop: Workshop) -> None:
    """Without require-signed-tags an unsigned tag is no problem, and the pin says what it is."""
    workshop.plugin("alpha")
    workshop.within("lock", "-q")
    assert recorded(workshop) == "none"
    assert said(workshop) == []
