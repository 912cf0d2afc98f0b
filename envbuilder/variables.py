"""The environment variables that reach uv, git and what they build: an allow-list, not a shell less what is known to harm.

A shell's variables steer what is locked and installed (`UV_NO_BINARY`, `SETUPTOOLS_SCM_PRETEND_VERSION`, `CFLAGS`), and
every backend reads more of them. What reaches a build says where things are and how the network is reached; what decides
about its outcome stands in profiles and registry entries. Pure.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

_NAMES = (
    # Places: programs, their libraries, a person's folders.
    r"PATH|HOME|USER|LOGNAME|SHELL|PWD|TMPDIR|TEMP|TMP|XDG_\w+",
    r"LD_LIBRARY_PATH|DYLD_(FALLBACK_)?LIBRARY_PATH|NIX_LD|NIX_LD_LIBRARY_PATH|DEVELOPER_DIR",
    r"(PYENV|ASDF|MISE)_\w+|RUSTUP_HOME|CARGO_HOME",
    # Language and time zone; how a terminal shows things.
    r"LANG|LANGUAGE|LC_\w+|LOCALE_ARCHIVE|TZ|TERM|COLORTERM|NO_COLOR",
    # The network: proxies, certificates, patience.
    r"(?i:(HTTP|HTTPS|ALL|FTP|NO)_PROXY)",
    r"PIP_(CERT|CLIENT_CERT|PROXY|DEFAULT_TIMEOUT|RETRIES)|SSL_CERT_(FILE|DIR)|SSL_CLIENT_CERT|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NIX_SSL_CERT_FILE",
    r"UV_(NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST|OFFLINE|LOCK_TIMEOUT)",
    r"(UV_)?(HTTP|REQUEST)_TIMEOUT|UV_HTTP_(CONNECT_TIMEOUT|RETRIES)|UV_CONCURRENT_\w+",
    r"UV_((PYTHON|PYPY|GRAALPY|PYODIDE)_INSTALL_MIRROR|PYTHON_DOWNLOADS_JSON_URL|ASTRAL_MIRROR_URL)",
    r"UV_(S3|GCS|AZURE)_ENDPOINT_URL|UV_NO_GITHUB_FAST_PATH|UV_GITHUB_FAST_PATH_URL",
    r"GIT_(ALLOW_PROTOCOL|PROTOCOL|PROTOCOL_FROM_USER|PROXY_COMMAND|PROXY_SSL_\w+|SSL_\w+|HTTP_\w+)",
    # Credentials, and the programs that ask for them.
    r"UV_INDEX_\w+_(USERNAME|PASSWORD)|UV_KEYRING_PROVIDER|UV_CREDENTIALS_DIR|UV_GITHUB_TOKEN",
    r"UV_(API_KEY|AUTH_TOKEN)|PYX_\w+|UV_NO_HF_TOKEN|HF_TOKEN",
    r"NETRC|SSH_(AUTH_SOCK|AGENT_PID|ASKPASS|ASKPASS_REQUIRE)|GIT_(SSH|SSH_COMMAND|SSH_VARIANT|ASKPASS)",
    r"GIT_TERMINAL_PROMPT|GNUPGHOME|GPG_TTY|GPG_AGENT_INFO|DISPLAY|WAYLAND_DISPLAY|DBUS_SESSION_BUS_ADDRESS",
    r"KRB5\w+|PYTHON_KEYRING_BACKEND|KEYRING_\w+|ARTIFACTS_\w+|VSS_\w+",
    r"(AWS|AZURE|GOOGLE|CLOUDSDK)_\w+|GH_\w+|GITHUB_TOKEN|GITLAB_TOKEN|GLAB_\w+|CI_JOB_TOKEN",
    # Caches, and where interpreters are kept.
    r"UV_(CACHE_DIR|NO_CACHE|PYTHON_INSTALL_DIR|PYTHON_CACHE_DIR|PYTHON_BIN_DIR)",
    r"CCACHE_DIR|SCCACHE_DIR",
    # git's settings and a person's name.
    r"GIT_CONFIG_\w+|GIT_(AUTHOR|COMMITTER)_\w+|EMAIL|GIT_CEILING_DIRECTORIES|GIT_EXEC_PATH|GIT_LFS_SKIP_SMUDGE",
    # What helps to see what happens, and changes none of it.
    r"RUST_LOG|RUST_BACKTRACE|GIT_TRACE\w*|GIT_CURL_VERBOSE|UV_NO_PROGRESS",
)
_ALLOWED = re.compile("|".join(_NAMES))

# Which interpreter is found is a machine's matter; what it is, is part of an environment's key.
DISCOVERY = (
    "UV_MANAGED_PYTHON",
    "UV_NO_MANAGED_PYTHON",
    "UV_PYTHON_DOWNLOADS",
    "UV_PYTHON_PREFERENCE",
    "UV_PYTHON_SEARCH_PATH",
)

# By these names people mean to steer uv, git, backends and compilers.
_STEERING = re.compile(
    r"(UV|PIP|GIT|SETUPTOOLS|HATCH|POETRY|PDM|FLIT|MATURIN|SKBUILD|CMAKE|FLASH_ATTENTION)_\w+|\w+PRETEND_VERSION\w*"
    r"|CC|CXX|FC|LD|AR|NVCC|CUDACXX|CUDA_HOME|CUDA_PATH|TORCH_CUDA_ARCH_LIST|(C|CXX|CPP|F|LD|NVCC_PREPEND_|RUST)FLAGS"
    r"|CPATH|(C|CPLUS)_INCLUDE_PATH|LIBRARY_PATH|PKG_CONFIG_PATH|MAX_JOBS|SOURCE_DATE_EPOCH|MACOSX_DEPLOYMENT_TARGET"
    r"|LD_PRELOAD|PYTHONPATH"
)
# These steer no build, and are not worth a word.
_IDLE = re.compile(
    r"UV_RUN_RECURSION_DEPTH|UV_ENV_FILE|GIT_(PAGER|EDITOR|SEQUENCE_EDITOR|PS1_\w+)|PIP_DISABLE_PIP_VERSION_CHECK"
)

# An entry's own variables reach its builds, but for those that would lead a build out of its environment.
_NOT_FOR_BUILDS = re.compile(r"(UV|GIT)_\w+|PATH|HOME|VIRTUAL_ENV|PYTHON(PATH|HOME|USERBASE|STARTUP)|LD_PRELOAD")


def allowed(environ: Mapping[str, str], *, more: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables that may reach uv, git and builds; `more` are names allowed besides."""
    named = {*more}
    return {name: value for name, value in environ.items() if name in named or _ALLOWED.fullmatch(name)}


def left_out(environ: Mapping[str, str]) -> list[str]:
    """Return the names that people steer builds with and that reach none, sorted."""
    return sorted(
        name
        for name in environ
        if _STEERING.fullmatch(name)
        and not _ALLOWED.fullmatch(name)
        and name not in DISCOVERY
        and not _IDLE.fullmatch(name)
    )


def for_builds(env: Mapping[str, str]) -> dict[str, str]:
    """Return those of an entry's variables that its builds get."""
    return {name: value for name, value in sorted(env.items()) if not _NOT_FOR_BUILDS.fullmatch(name)}


# Settings of a person's git that would change the files of a checkout or a clone, or run programs at one.
GIT_SETTINGS = (
    ("core.autocrlf", "false"),
    ("core.eol", "lf"),
    ("core.attributesFile", os.devnull),
    ("core.hooksPath", os.devnull),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "true"),
    ("core.fileMode", "true"),
    # Pruning would take pinned commits from clones.
    ("fetch.prune", "false"),
    ("fetch.pruneTags", "false"),
)
# pip's settings would steer backends that run it. Sets are walked in the same order each time, also in `setup.py`.
OF_BUILDS = {"PIP_CONFIG_FILE": os.devnull, "PYTHONHASHSEED": "0"}
