"""What surrounds us steers nothing that is built: shells, settings files of uv's, git's and pip's."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from local_index import Index, make_sdist, make_wheel
from workshop import BACKEND, DATES, PYTHON, Workshop

from envbuilder import variables
from envbuilder.documents import parse_toml
from envbuilder.uv import find_uv
from envbuilder.workflow.checkout import Checkout
from envbuilder.workflow.losses import losses

TINY = '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'
DYNAMIC = f'{TINY}[project]\nname = "alpha"\ndynamic = ["version"]\n'
# As setuptools-scm does, it believes a variable more than the commit; what it sees around it goes into the wheel.
TELLING = BACKEND.replace(
    'version = project["version"]',
    'version = os.environ.get("SETUPTOOLS_SCM_PRETEND_VERSION", project["version"])',
).replace(
    "    record = []",
    '    files[f"{name}/around.json"] = json.dumps(dict(os.environ))\n    record = []',
)

# Text that is read loses its line ends.
EXACT = BACKEND.replace("= path.read_text()", "= path.read_bytes().decode()")


def told(workshop: Workshop, name: str = "alpha", profile: str = "prod") -> tuple[str, str]:
    """A package's version as its pin and as its lock say it."""
    place = workshop.work / "profiles" / profile
    pins = parse_toml((place / "pins.toml").read_text(), "pins.toml").value
    lock = parse_toml((place / "alpha" / "uv.lock").read_text(), "uv.lock").value
    return pins["entries"][name]["version"], next(each["version"] for each in lock["package"] if each["name"] == name)


def released(workshop: Workshop, repository: str, env: Mapping[str, str] | None = None) -> None:
    """A plugin alpha, whose build tells its version; the repository's name keeps it apart in uv's cache."""
    workshop.release(repository, "v0.3.1", name="alpha", version="0.3.1", pyproject=DYNAMIC, backend=TELLING)
    source = {"git": f"https://git.example.org/{repository}.git", "tag": "v0.3.1"}
    workshop.entry("alpha", source=source, env=env)


def around(workshop: Workshop, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Build alpha; what its backend saw around it."""
    ran = workshop.within("build", "--format", "json", env=env)
    assert ran.status == 0, ran.out
    text = next(
        (workshop.work / ".envbuilder" / "envs" / "prod" / "alpha").glob("lib/*/site-packages/alpha/around.json")
    )
    seen: dict[str, str] = json.loads(text.read_text())
    return seen


def key(workshop: Workshop) -> str:
    """The key of alpha's environment."""
    return (workshop.work / ".envbuilder" / "envs" / "prod" / "alpha").resolve().name


@pytest.mark.parametrize(
    "name",
    [
        "UV_NO_BINARY", "UV_NO_BINARY_PACKAGE", "UV_NO_BUILD", "UV_NO_BUILD_ISOLATION", "UV_COMPILE_BYTECODE", "UV_LINK_MODE",
        "UV_TORCH_BACKEND", "UV_CONFIG_FILE", "UV_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_STRATEGY", "UV_GIT_LFS",
        "UV_PREVIEW", "UV_NO_EDITABLE", "UV_NO_VERIFY_HASHES", "UV_PUBLISH_TOKEN", "UV_SOMETHING_TO_COME", "PIP_INDEX_URL",
        "PIP_NO_BINARY", "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_ALPHA", "HATCH_BUILD_HOOKS_ENABLE", "SOURCE_DATE_EPOCH", "CC",
        "CFLAGS", "LDFLAGS", "CMAKE_ARGS", "CUDA_HOME", "MAX_JOBS", "PYTHONPATH", "PYTHONHASHSEED", "LD_PRELOAD", "RUSTFLAGS",
        "GIT_DIR", "GIT_TEMPLATE_DIR", "VIRTUAL_ENV", "FLASH_ATTENTION_FORCE_BUILD", "MY_OWN",
    ],
)  # fmt: skip
def test_what_would_steer_a_build_is_not_allowed(name: str) -> None:
    """Whatever changes what is locked or installed, and whatever nobody here has heard of, stays out."""
    assert variables.allowed({name: "1"}) == {}


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "LC_ALL", "LANG", "https_proxy", "HTTPS_PROXY", "NO_PROXY",
        "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "UV_CACHE_DIR", "UV_HTTP_TIMEOUT", "UV_CONCURRENT_BUILDS", "UV_NATIVE_TLS",
        "UV_INDEX_GIT_EXAMPLE_ORG_USERNAME", "UV_INDEX_GIT_EXAMPLE_ORG_PASSWORD", "UV_KEYRING_PROVIDER", "NETRC",
        "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_KEY_0", "GIT_AUTHOR_NAME",
        "GNUPGHOME", "LD_LIBRARY_PATH", "UV_PYTHON_INSTALL_DIR", "GITHUB_TOKEN", "AWS_PROFILE",
    ],
)  # fmt: skip
def test_how_the_network_is_reached_is_allowed(name: str) -> None:
    """Places, proxies, certificates, credentials, caches, locale and git's settings reach uv, git and builds."""
    assert variables.allowed({name: "1"}) == {name: "1"}
    assert variables.left_out({name: "1"}) == []


def test_a_variable_that_asks_for_source_changes_no_byte(workshop: Workshop, tmp_path: Path) -> None:
    """With `UV_NO_BINARY`, `PIP_NO_BINARY` or a uv.toml that asks for it, the wheel that the lock names is installed."""
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "tool", "1.0", files={"tool/__init__.py": b"FROM = 'wheel'\n"})
    facts = {"name": "tool", "version": "1.0"}
    files = {"backend/tiny_backend.py": BACKEND, "backend/project.json": json.dumps(facts), "pyproject.toml": TINY}
    make_sdist(wheels, "tool", "1.0", {**files, "src/tool/__init__.py": "FROM = 'source'\n"})
    settings = tmp_path / "config"
    (settings / "uv").mkdir(parents=True)
    (settings / "uv" / "uv.toml").write_text('no-binary = true\nexclude-newer = "2020-01-01"\nconcurrent-builds = 3\n')
    (settings / "git").mkdir()
    (settings / "git" / "config").write_text("[user]\n    name = somebody\n")
    steering = {
        "UV_NO_BINARY": "1",
        "UV_NO_BINARY_PACKAGE": "tool",
        "PIP_NO_BINARY": ":all:",
        "UV_COMPILE_BYTECODE": "1",
    }
    cache = {"UV_CACHE_DIR": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(settings)}
    with Index(wheels) as index:
        workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        workshop.plugin("alpha", dependencies=("tool",))
        for command in ("lock", "build"):
            ran = workshop.within(command, "-q", env={**steering, **cache})
            assert ran.status == 0, ran.err
        environment = workshop.work / ".envbuilder" / "envs" / "prod" / "alpha"
        assert "wheel" in next(environment.glob("lib/*/site-packages/tool/__init__.py")).read_text()
        assert not list(environment.glob("lib/*/site-packages/**/*.pyc"))
        again = workshop.within("build", "--format", "json", env=cache)
        assert "unchanged" in again.out
    ran = workshop.within("doctor", "--offline", "--format", "json", env={**steering, **cache})
    found = {each["what"]: each["found"] for each in ran.json["result"]["findings"]}  # type: ignore[index]
    assert "uv.toml: exclude-newer, no-binary;" in found["settings"]
    assert all(name in found["variables"] for name in steering)
    shown = workshop.within("lock", "-v", env={**steering, **cache}).err
    told_of = next(line for line in shown.splitlines() if line.startswith("# not passed to uv, git and builds: "))
    assert steering.keys() <= set(told_of.split())
    # What is shown to uv in place of the person's settings has the rest of them.
    kept = next((tmp_path / "cache" / "envbuilder-settings").iterdir())
    assert (kept / "uv" / "uv.toml").read_text() == "concurrent-builds = 3\n"
    assert (kept / "git" / "config").read_text().startswith("[user]")


def test_a_pretended_version_is_not_believed(workshop: Workshop) -> None:
    """A variable that backends believe more than the commit reaches neither pins nor lock nor environment."""
    pretending = {"SETUPTOOLS_SCM_PRETEND_VERSION": "9.9", "MY_OWN": "1", "CFLAGS": "-O0", "PYTHONHASHSEED": "7"}
    released(workshop, "pretended")
    assert workshop.within("lock", "-q", env=pretending).status == 0
    assert told(workshop) == ("0.3.1", "0.3.1")
    assert workshop.within("check", "--format", "json").json["problems"] == []
    seen = around(workshop, pretending)
    assert not pretending.keys() & seen.keys() - {"PYTHONHASHSEED"}
    assert (seen["PYTHONHASHSEED"], seen["PIP_CONFIG_FILE"]) == ("0", os.devnull)


def test_a_lock_with_another_version_than_its_pin_is_told_and_mended(workshop: Workshop) -> None:
    """A lock from a time when the shell counted: check and build tell its version, and lock writes what the commit says."""
    released(workshop, "told-wrong")
    assert workshop.within("lock", "-q").status == 0
    place = workshop.work / "profiles" / "prod"
    lock, pins = place / "alpha" / "uv.lock", place / "pins.toml"
    right, digest = lock.read_text(), "sha256:" + _sha(lock)
    lock.write_text(right.replace("0.3.1", "9.9", 1))
    pins.write_text(pins.read_text().replace(digest, "sha256:" + _sha(lock)))
    ran = workshop.within("check", "--format", "json")
    assert ran.status == 1
    assert "lock-off-tag" in ran.codes
    assert "holds alpha at version 9.9, the pin is version 0.3.1" in ran.out
    ran = workshop.within("build", "--format", "json")
    assert ran.codes == ["lock-stale"]
    assert workshop.within("lock", "-q").status == 0
    assert lock.read_text() == right
    assert workshop.within("check", "--format", "json").status == 0


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_version_that_uv_keeps_from_a_steered_build_is_forgotten(workshop: Workshop) -> None:
    """What a person's own uv once built under a variable, and keeps, is built anew where its pin says otherwise."""
    released(workshop, "kept-wrong")
    cache = {"UV_CACHE_DIR": str(workshop.root / "cache")}
    assert workshop.within("lock", "-q", env=cache).status == 0
    project = workshop.work / "profiles" / "prod" / "alpha"
    right = (project / "uv.lock").read_text()
    subprocess.run([find_uv(), "cache", "clean", "--quiet"], env={**os.environ, **cache}, check=True)
    led = {**DATES, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": "https://git.example.org/"}
    led["GIT_CONFIG_KEY_0"] = f"url.{workshop.remotes}/.insteadOf"
    wrong = {**os.environ, **led, **cache, "SETUPTOOLS_SCM_PRETEND_VERSION": "9.9"}
    (project / "uv.lock").unlink()
    subprocess.run([find_uv(), "lock", "--quiet"], cwd=project, env=wrong, check=True)
    assert 'version = "9.9"' in (project / "uv.lock").read_text()
    (project / "uv.lock").unlink()
    ran = workshop.within("lock", env=cache)
    assert ran.status == 0, ran.err
    assert (project / "uv.lock").read_text() == right


def test_an_entrys_variables_reach_its_builds_and_are_part_of_the_key(workshop: Workshop) -> None:
    """What an entry names reaches its own builds; with other variables it is another environment, and the first one is there still."""
    env = {"CC": "clang", "UV_NO_BINARY": "1", "PATH": os.environ["PATH"], "TOKENIZERS_PARALLELISM": "false"}
    released(workshop, "with-compiler", env=env)
    assert workshop.within("lock", "-q").status == 0
    seen = around(workshop)
    assert seen["CC"] == "clang"
    assert "UV_NO_BINARY" not in seen
    first = key(workshop)
    source = {"git": "https://git.example.org/with-compiler.git", "tag": "v0.3.1"}
    workshop.entry("alpha", source=source, env={"CC": "gcc"})
    assert workshop.within("build", "--format", "json").codes == ["lock-stale"]
    assert workshop.within("lock", "-q").status == 0
    assert around(workshop)["CC"] == "gcc"
    assert key(workshop) != first
    workshop.entry("alpha", source=source)
    assert workshop.within("lock", "-q").status == 0
    assert "CC" not in around(workshop)


def test_an_entrys_variables_reach_what_its_lock_holds_from_source(workshop: Workshop, tmp_path: Path) -> None:
    """A release without a wheel is built with the plugin's variables, which stale neither its lock nor another plugin's."""
    wheels = tmp_path / "wheels"
    facts = {"name": "tool", "version": "1.0"}
    files = {"backend/tiny_backend.py": TELLING, "backend/project.json": json.dumps(facts), "pyproject.toml": TINY}
    make_sdist(wheels, "tool", "1.0", {**files, "src/tool/__init__.py": ""})
    env = {"UV_CACHE_DIR": str(tmp_path / "cache")}
    with Index(wheels) as index:
        workshop.write("profiles/prod/profile.toml", f'python = "{PYTHON}"\nindex-url = "{index.url}"\n')
        workshop.plugin("alpha", dependencies=("tool",), keys={"env": {"CC": "clang"}})
        workshop.plugin("beta", dependencies=("tool",))
        assert workshop.within("lock", "-q", env=env).status == 0
        assert workshop.within("lock", "--check", "-q", env=env).status == 0
        assert "unchanged" in workshop.within("lock", env=env).err
        assert workshop.within("build", "-q", env=env).status == 0
    compilers = {}
    for name in ("alpha", "beta"):
        environment = workshop.work / ".envbuilder" / "envs" / "prod" / name
        around_it = json.loads(next(environment.glob("lib/*/site-packages/tool/around.json")).read_text())
        compilers[name] = around_it.get("CC")
    assert compilers == {"alpha": "clang", "beta": None}


def test_a_checkout_gets_its_entrys_variables(workshop: Workshop) -> None:
    """In dev, a folder is built with its entry's variables, and has the version that they say."""
    released(workshop, "as-checkout")
    workshop.package(
        workshop.work / "packages" / "alpha", name="alpha", version="0.3.1", pyproject=DYNAMIC, backend=TELLING
    )
    overlay = {"source": {"path": "packages/alpha"}, "env": {"SETUPTOOLS_SCM_PRETEND_VERSION": "0.4.0"}}
    workshop.write("profiles/registry/alpha.dev.yaml", json.dumps(overlay))
    ran = workshop.within("build", "--profile", "dev", env={"SETUPTOOLS_SCM_PRETEND_VERSION": "9.9"})
    assert ran.status == 0, ran.err
    code = "import importlib.metadata as m; print(m.version('alpha'))"
    assert workshop.run("exec", "--profile", "dev", "alpha", "--", "python", "-c", code).out.strip() == "0.4.0"


def test_an_entry_may_pretend_a_version(workshop: Workshop) -> None:
    """A version that the entry itself names is everybody's: pin, lock and environment say it, and check judges it by the tag."""
    released(workshop, "says-itself", env={"SETUPTOOLS_SCM_PRETEND_VERSION": "0.3.2"})
    assert workshop.within("lock", "-q").status == 0
    assert told(workshop) == ("0.3.2", "0.3.2")
    assert workshop.within("check", "--format", "json").codes == ["version-mismatch"]
    # What the entry says later counts as well, and what it says no more does not.
    source = {"git": "https://git.example.org/says-itself.git", "tag": "v0.3.1"}
    for env, version in (({}, "0.3.1"), ({"SETUPTOOLS_SCM_PRETEND_VERSION": "0.3.3"}, "0.3.3"), ({}, "0.3.1")):
        workshop.entry("alpha", source=source, env=env)
        assert workshop.within("build", "--format", "json").codes == ["lock-stale"]
        ran = workshop.within("lock", "-q")
        assert ran.status == 0, ran.err
        assert told(workshop) == (version, version)
        assert around(workshop).get("SETUPTOOLS_SCM_PRETEND_VERSION", "0.3.1") == version


def test_a_persons_git_changes_no_file(workshop: Workshop, tmp_path: Path) -> None:
    """Line endings, attributes and hooks of a person's git reach no checkout that a package is built from."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text("#!/bin/sh\necho 'HOOKED = 1' >> src/alpha/__init__.py\n")
    (hooks / "post-checkout").chmod(0o755)
    (tmp_path / "attributes").write_text("*.py text eol=crlf\n")
    settings = tmp_path / "gitconfig"
    settings.write_text(
        f"[core]\nautocrlf = true\neol = crlf\nhooksPath = {hooks}\nattributesFile = {tmp_path / 'attributes'}\n"
    )
    env = {"GIT_CONFIG_GLOBAL": str(settings), "UV_CACHE_DIR": str(tmp_path / "cache")}
    workshop.plugin("alpha", code="class Model:\n    pass\n", backend=EXACT)
    for command in ("lock", "build"):
        ran = workshop.within(command, "-q", env=env)
        assert ran.status == 0, ran.err
    environment = workshop.work / ".envbuilder" / "envs" / "prod" / "alpha"
    module = next(environment.glob("lib/*/site-packages/alpha/__init__.py"))
    assert module.read_bytes() == b"class Model:\n    pass\n"


def test_settings_of_a_git_that_runs_us_change_no_file(workshop: Workshop, tmp_path: Path) -> None:
    """In an alias or a hook of `git -c core.autocrlf=true`, what is installed has the bytes of the commit all the same."""
    env = {"GIT_CONFIG_PARAMETERS": "'core.autocrlf'='true'", "UV_CACHE_DIR": str(tmp_path / "cache")}
    workshop.plugin("alpha", code="class Model:\n    pass\n", backend=EXACT)
    for command in ("lock", "build"):
        ran = workshop.within(command, "-q", env=env)
        assert ran.status == 0, ran.err
    environment = workshop.work / ".envbuilder" / "envs" / "prod" / "alpha"
    module = next(environment.glob("lib/*/site-packages/alpha/__init__.py"))
    assert module.read_bytes() == b"class Model:\n    pass\n"


def test_a_persons_taste_for_colours_hides_nothing(workshop: Workshop, tmp_path: Path) -> None:
    """With git's colours, columns and signatures always on, a checkout's state is read as it is without."""
    workshop.plugin("alpha")
    settings = tmp_path / "gitconfig"
    settings.write_text("[color]\nui = always\n[column]\nui = always\n[log]\nshowSignature = true\n")
    folder = workshop.remotes / "alpha.git"
    (folder / "uv.lock").write_text("mine\n")
    (folder / "new.py").write_text("x = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        plain = losses(Checkout(folder, {}), {})
        patch.setenv("GIT_CONFIG_GLOBAL", str(settings))
        assert losses(Checkout(folder, {}), {}) == plain
    assert "\x1b" not in str(plain)


def test_workers_keep_a_persons_shell(workshop: Workshop) -> None:
    """`exec` passes on what a person set for models, tokens and libraries, less what would lead a program astray."""
    workshop.plugin("alpha")
    for command in ("lock", "build"):
        assert workshop.within(command, "-q").status == 0
    env = {"HF_HOME": "/models", "HF_TOKEN": "t", "UV_NO_BINARY": "1", "MY_OWN": "1", "PYTHONPATH": "/elsewhere"}
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    seen = json.loads(workshop.run("exec", "alpha", "--", "python", "-c", code, env=env).out)
    assert env.items() - seen.items() == {("PYTHONPATH", "/elsewhere")}


@pytest.mark.parametrize("settings", ['required-version = ">=99"\n', "required-version =\n"], ids=["other", "broken"])
def test_a_workspaces_own_uv_settings_choose_no_python(workshop: Workshop, settings: str) -> None:
    """A uv.toml of the workspace's or above it, which no lock reads, hinders none from finding its interpreter."""
    workshop.plugin("alpha")
    for folder in (workshop.root, workshop.work):
        (folder / "uv.toml").write_text(settings)
    ran = workshop.within("lock", "-q")
    assert ran.status == 0, ran.err


def test_settings_that_uv_cannot_read_are_told_in_its_words(workshop: Workshop) -> None:
    """Where uv refuses a person's settings or a variable, that is said, not only that there is no Python."""
    workshop.plugin("alpha")
    settings = workshop.root / "config" / "uv" / "uv.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("offline =\n")
    for env, words in (
        ({"XDG_CONFIG_HOME": str(settings.parents[1])}, str(settings)),
        ({"UV_OFFLINE": ""}, "UV_OFFLINE"),
    ):
        ran = workshop.within("lock", "--format", "json", env=env)
        assert ran.codes == ["python-missing"]
        assert "Failed to parse" in ran.out
        assert words in ran.out
