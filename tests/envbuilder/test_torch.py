"""Torch in several builds: one lock for all machines, the right build for this one, and torch from the base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_index import Index, make_sdist, make_wheel
from workshop import BACKEND, PYTHON, Ran, Workshop

BUILDS = ("cpu", "cu126", "cu128", "cu130")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels as the package index and torch's own indexes have them, a few hundred bytes each."""
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "nvidia-cuda", "12.8")
    make_wheel(folder, "torch", "2.8.0", requires=["nvidia-cuda==12.8"])
    make_wheel(folder, "torchvision", "0.23.0", requires=["torch==2.8.0"])
    make_wheel(folder, "timm", "1.0", requires=["torchvision"])
    make_wheel(folder, "numbers", "1.0")
    for build in BUILDS:
        make_wheel(folder / build, "torch", f"2.8.0+{build}")
        make_wheel(folder / build, "torchvision", f"0.23.0+{build}", requires=["torch==2.8.0"])
    return folder


@pytest.fixture
def index(wheels: Path) -> Iterator[Index]:
    """The indexes, served on loopback."""
    with Index(wheels) as serving:
        yield serving


@pytest.fixture
def bench(workshop: Workshop, index: Index) -> Workshop:
    """A plugin with torch and one without, in a profile that lists the CPU's build and two of CUDA's."""
    profile(workshop, index, "cpu", "cu126", "cu128")
    workshop.plugin("reader", dependencies=("torch>=2.8",))
    workshop.plugin("counter", dependencies=("numbers",))
    return workshop


def profile(workshop: Workshop, index: Index, *backends: str) -> None:
    """Write prod's profile."""
    workshop.write(
        "profiles/prod/profile.toml",
        f'python = "{PYTHON}"\nindex-url = "{index.url}"\ntorch-index-url = "{index.torch_url}"\n'
        f"torch-backends = {json.dumps(backends)}\n",
    )


def lock(workshop: Workshop, *arguments: str, env: dict[str, str] | None = None) -> Ran:
    """Lock, which must succeed."""
    ran = workshop.within("lock", *arguments, env=env)
    assert ran.status == 0, ran.err
    return ran


def locks(workshop: Workshop) -> dict[str, bytes]:
    """All that `lock` wrote."""
    folder = workshop.work / "profiles" / "prod"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_lock_holds_every_listed_build(bench: Workshop) -> None:
    """Each build of torch is in the lock, from its own index; what the package index serves is not, unless listed."""
    lock(bench)
    text = locks(bench)["reader/uv.lock"].decode()
    for build in ("cpu", "cu126", "cu128"):
        assert f'version = "2.8.0+{build}"' in text
    assert 'version = "2.8.0"\n' not in text
    assert "2.8.0+cu130" not in text


def test_lock_without_torch_gets_none(bench: Workshop) -> None:
    """A plugin that does not need torch is locked as if there were no backends."""
    lock(bench)
    assert b"torch" not in locks(bench)["counter/uv.lock"] + locks(bench)["counter/pyproject.toml"]


def test_torch_that_only_an_index_tells_of_is_found(bench: Workshop) -> None:
    """Where torch comes by way of a library's metadata, it and its like come from torch's indexes all the same."""
    bench.plugin("far", dependencies=("timm",))
    lock(bench, "far")
    text = locks(bench)["far/uv.lock"].decode()
    for build in ("cpu", "cu126", "cu128"):
        assert f'version = "0.23.0+{build}"' in text
    assert 'version = "0.23.0"\n' not in text
    assert "unchanged" in lock(bench, "far").out


def test_locks_from_two_fresh_caches_are_equal(bench: Workshop, tmp_path: Path) -> None:
    """Nothing but registry, profile and indexes decides what is written."""
    lock(bench, env={"UV_CACHE_DIR": str(tmp_path / "one")})
    first = locks(bench)
    for path in (bench.work / "profiles" / "prod").glob("*/uv.lock"):
        path.unlink()
    lock(bench, env={"UV_CACHE_DIR": str(tmp_path / "two")})
    assert locks(bench) == first


def test_other_backends_make_locks_with_torch_stale(bench: Workshop, index: Index) -> None:
    """A backend more in the profile is seen by `lock --check` and `check`, and concerns plugins with torch alone."""
    lock(bench)
    assert bench.within("lock", "--check").status == 0
    profile(bench, index, "cpu", "cu126", "cu128", "cu130")
    for command in (["lock", "--check"], ["check"]):
        ran = bench.within(*command, "--format", "json")
        assert ran.codes == ["lock-stale"]
        assert [each["entry"] for each in ran.json["problems"]] == ["reader"]  # type: ignore[attr-defined]
    lock(bench)
    assert b"2.8.0+cu130" in locks(bench)["reader/uv.lock"]


def test_pinned_backend_is_the_only_one_in_the_lock(bench: Workshop) -> None:
    """`torch: cu126` in an entry locks that build; `default` must be listed to be asked for."""
    bench.entry("reader", torch="cu126")
    lock(bench)
    text = locks(bench)["reader/uv.lock"].decode()
    assert "2.8.0+cu126" in text
    assert "2.8.0+cpu" not in text
    bench.entry("reader", torch="default")
    ran = bench.within("lock")
    assert ran.status == 2
    assert "expected auto or one of the profile's torch-backends, cpu, cu126, cu128; found 'default'" in ran.err


def test_own_index_of_a_plugin_is_named_with_a_way_out(bench: Workshop, index: Index) -> None:
    """A plugin whose own uv settings name an index for torch cannot have several; the hint says what to do."""
    sources = f"""
        [tool.uv.sources]
        torch = {{index = "own"}}
        [[tool.uv.index]]
        name = "own"
        url = "{index.torch_url}/cu130"
        explicit = true
        """.replace("        ", "")
    bench.release("reader", "v0.2.0", version="0.2.0", dependencies=("torch>=2.8",))
    repository = bench.remotes / "reader.git"
    with (repository / "pyproject.toml").open("a") as stream:
        stream.write(sources)
    bench.git("-C", str(repository), "commit", "--quiet", "--all", "--message", "own index")
    bench.git("-C", str(repository), "tag", "v0.2.1")
    bench.entry("reader", tag="v0.2.1")
    ran = bench.within("lock", "reader")
    assert ran.status == 1
    assert "conflicting indexes for package `torch`" in ran.err
    assert "torch: default leaves it alone" in ran.err


def machine(workshop: Workshop, version: str | None, *, capability: tuple[int, int] = (9, 0)) -> dict[str, str]:
    """Variables that stand a machine with that driver, or with none, in for this one."""
    gpu = {"index": 0, "uuid": "GPU-1", "name": "Some GPU", "total_bytes": 8 << 30, "free_bytes": 8 << 30}
    record = {"version": version, "cuda": [12, 8], "gpus": [{**gpu, "capability": capability}]} if version else None
    path = workshop.root / "nvml.json"
    path.write_text(json.dumps(record))
    return {"ENVBUILDER_NVML": str(path)}


def built(ran: Ran) -> dict[str, str | None]:
    """What `build` or `status --format json` says of each plugin's torch backend."""
    result = ran.json["result"]
    assert isinstance(result, dict)
    return {each["plugin"]: each.get("torch") for each in result.get("environments") or result["plugins"]}


def torch_in(workshop: Workshop, plugin: str, env: dict[str, str]) -> str:
    """The version of torch that a plugin's interpreter sees."""
    code = "from importlib.metadata import version; print(version('torch'))"
    return workshop.run("exec", plugin, "--", "python", "-c", code, env=env).out.strip()


def build(workshop: Workshop, *arguments: str, env: dict[str, str]) -> dict[str, str | None]:
    """Build, which must succeed, and tell the backends."""
    ran = workshop.within("build", "--format", "json", *arguments, env=env)
    assert ran.status == 0, ran.out
    return built(ran)


def test_build_takes_what_the_driver_can_run(bench: Workshop) -> None:
    """From one lock a new driver, an old one and none get each their build, and each is another environment."""
    lock(bench)
    before = locks(bench)
    for version, backend in (("570.86.10", "cu128"), ("470.82.01", "cpu"), (None, "cpu")):
        env = machine(bench, version)
        assert build(bench, env=env) == {"reader": backend, "counter": None}
        assert torch_in(bench, "reader", env) == f"2.8.0+{backend}"
        assert built(bench.within("status", "--format", "json", env=env))["reader"] == backend
    assert locks(bench) == before
    assert len(list((bench.work / ".envbuilder" / "store").glob("reader-*.files.json"))) == 2


def test_driver_that_changes_is_noticed_by_a_build_with_nothing_else_to_do(bench: Workshop) -> None:
    """The stamp of the last build counts for the driver that it saw."""
    lock(bench)
    assert build(bench, env=machine(bench, "570.86.10"))["reader"] == "cu128"
    assert build(bench, env=machine(bench, "570.86.10")) == {"reader": "cu128", "counter": None}
    assert build(bench, env=machine(bench, None))["reader"] == "cpu"


def test_choice_by_hand_holds_until_auto(bench: Workshop) -> None:
    """`--torch` counts for every later command, and for the plugins that were named alone."""
    lock(bench)
    bench.plugin("other", dependencies=("torch",))
    lock(bench)
    env = machine(bench, "570.86.10")
    assert build(bench, "--torch", "cu126", "reader", env=env) == {"reader": "cu126"}
    assert build(bench, env=env) == {"reader": "cu126", "other": "cu128", "counter": None}
    assert built(bench.within("status", "--format", "json", env=env))["reader"] == "cu126"
    assert "cu126" in bench.within("status", env=env).out
    assert build(bench, "--torch", "auto", env=env)["reader"] == "cu128"


def test_backend_that_the_driver_cannot_run_is_refused(bench: Workshop, index: Index) -> None:
    """By hand: nothing is built, and the status is 2. Pinned by an entry: that plugin fails, the others are built."""
    profile(bench, index, "cpu", "cu126", "cu130")
    lock(bench)
    env = machine(bench, "570.86.10")
    ran = bench.within("build", "--torch", "cu130", env=env)
    assert ran.status == 2
    assert "error[torch-unsupported]: cu130 needs an NVIDIA driver 580 or later; found 570.86.10" in ran.err
    assert "hint: envbuilder build --torch auto" in ran.err
    assert not (bench.work / ".envbuilder" / "store").exists()
    bench.entry("reader", torch="cu130")
    lock(bench)
    ran = bench.within("build", "--format", "json", env=env)
    assert (ran.status, ran.codes) == (1, ["torch-unsupported"])
    assert built(ran)["counter"] is None
    state = bench.within("status", "--format", "json", "reader", env=env).json["result"]
    assert "torch-unsupported" in json.dumps(state)


def test_backend_that_is_not_listed_is_refused(bench: Workshop) -> None:
    """A build that no lock holds cannot be asked for."""
    ran = bench.within("build", "--torch", "cu118")
    assert ran.status == 2
    assert "--torch: expected auto or one of the profile's torch-backends, cpu, cu126, cu128" in ran.err


def test_build_for_elsewhere_is_made_with_a_warning(bench: Workshop) -> None:
    """A node without a driver may build what the nodes with GPUs are to run."""
    lock(bench)
    env = machine(bench, None)
    ran = bench.within("build", "--torch", "cu128", "--format", "json", env=env)
    assert (ran.status, ran.codes) == (0, ["torch-without-driver"])
    assert torch_in(bench, "reader", env) == "2.8.0+cu128"


def test_single_and_default_backends(bench: Workshop, index: Index) -> None:
    """One backend needs no choice; `default` is what the package index serves, and the last resort of `auto`."""
    profile(bench, index, "cpu")
    lock(bench)
    env = machine(bench, "570.86.10")
    assert build(bench, env=env)["reader"] == "cpu"
    profile(bench, index, "default", "cu128")
    lock(bench)
    assert build(bench, env=env)["reader"] == "cu128"
    env = machine(bench, None)
    assert build(bench, env=env)["reader"] == "default"
    assert torch_in(bench, "reader", env) == "2.8.0"


def test_why_and_sbom_see_behind_the_backends(bench: Workshop) -> None:
    """What stands behind an extra of the generated project is in the plugin all the same, in each of its builds."""
    bench.plugin("far", dependencies=("timm",))
    lock(bench)
    ran = bench.within("why", "far", "torch")
    assert ran.status == 0, ran.err
    assert "timm 1.0" in ran.out
    assert "torch 2.8.0+cu128" in ran.out
    assert "extra-" not in ran.out
    ran = bench.within("sbom", "far", "--format", "json")
    assert ran.status == 0, ran.err
    bill = ran.json["result"]["bill"]  # type: ignore[index]
    found = {(each["name"], each.get("version")) for each in bill["components"]}
    assert found == {
        ("far", "0.1.0"),
        ("timm", "1.0"),
        *(("torch", f"2.8.0+{build}") for build in ("cpu", "cu126", "cu128")),
        *(("torchvision", f"0.23.0+{build}") for build in ("cpu", "cu126", "cu128")),
    }


def test_bundle_holds_the_backend_that_was_asked_for(bench: Workshop, tmp_path: Path) -> None:
    """A bundle made on a node without a GPU serves those that have one."""
    lock(bench)
    login, node = machine(bench, None), {"UV_CACHE_DIR": str(tmp_path / "cache"), "ENVBUILDER_HOME": str(tmp_path)}
    assert build(bench, "--torch", "cu128", env=login)["reader"] == "cu128"
    ran = bench.within("bundle", "create", "all.bundle", env=login)
    assert ran.status == 0, ran.err
    assert bench.within("bundle", "restore", "all.bundle", env={**login, **node}).status == 0
    env = {**machine(bench, "570.86.10"), **node}
    assert build(bench, "--offline", env=env)["reader"] == "cu128"


def test_cutoff_holds_for_torch_where_its_index_tells_times(bench: Workshop, tmp_path: Path) -> None:
    """`exclude-newer` counts for every index; one without times has nothing that is old enough."""
    folder = tmp_path / "dated"
    wheels = [make_wheel(folder / "cpu", "torch", f"{version}+cpu") for version in ("2.8.0", "2.9.0")]
    wheels.append(make_wheel(folder, "numbers", "1.0"))
    times = {"torch-2.9.0+cpu-py3-none-any.whl": "2026-03-01T00:00:00Z"}
    for uploaded in ({wheel.name: "2026-01-01T00:00:00Z" for wheel in wheels} | times, {}):
        with Index(folder, uploaded=uploaded) as index:
            profile(bench, index, "cpu")
            with (bench.work / "profiles/prod/profile.toml").open("a") as stream:
                stream.write('exclude-newer = "2026-02-01T00:00:00Z"\n')
            ran = bench.within("lock", "reader")
        assert ran.status == (0 if uploaded else 1), ran.err
        assert 'version = "2.8.0+cpu"' in locks(bench)["reader/uv.lock"].decode()
    assert "filtered by `exclude-newer`" in ran.err


def test_doctor_names_driver_and_gpus(bench: Workshop) -> None:
    """What the choice of a backend rests on; no driver is nothing to mend, a record that cannot be read is."""
    out = bench.within("doctor", "--offline", env=machine(bench, "570.86.10")).out
    assert "Some GPU (driver 570.86.10, CUDA 12.8)" in out
    assert "this machine runs builds for CUDA 11, 12\n" in out  # Dev's profile has no backends.
    with Index(bench.root) as index:
        profile(bench, index, "cpu", "cu128", "cu130")
    out = bench.within("doctor", "--offline", env=machine(bench, "570.86.10")).out
    assert "auto takes cu128 (cpu: ok; cu128: ok; cu130: cu130 needs an NVIDIA driver 580 or later; found" in out
    assert "no NVIDIA driver" in bench.within("doctor", "--offline", env=machine(bench, None)).out
    ran = bench.within(
        "doctor", "--offline", "--format", "json", env={"ENVBUILDER_NVML": str(bench.root / "nothing.json")}
    )
    assert "doctor-gpu" in ran.codes


@pytest.mark.parametrize("visible", ["", "-1", "7", "word"])
def test_gpus_that_a_variable_hides_are_told(bench: Workshop, visible: str) -> None:
    """`doctor`, and a build that chooses torch by the driver, say that the variable hides the machine's GPU."""
    env = {**machine(bench, "570.86.10"), "CUDA_VISIBLE_DEVICES": visible}
    told = "hides 1 of the machine's 1 GPU"
    ran = bench.within("doctor", "--offline", "--format", "json", env=env)
    assert "doctor-gpu" in ran.codes
    assert told in ran.out
    assert "gpus: auto takes the CPU" in ran.out
    if visible == "7":
        lock(bench)
        ran = bench.within("build", "--format", "json", env=env)
        assert (ran.status, ran.codes) == (0, ["gpus-hidden"])
        assert told in ran.out


def test_plan_tells_of_gpus_that_a_variable_hides(workshop: Workshop) -> None:
    """`plan` names the tasks that cannot run and the variable that hides the GPU, with a command that shows it gone."""
    workshop.plugin("alpha")
    workshop.write("data.csv", "id;question;answer\n1;a;A\n")
    tasks = "[{plugin: alpha, gpus: 1, id: needs}, {plugin: alpha, id: takes}, {plugin: alpha, gpus: 0, id: none}]"
    workshop.write("run.yaml", f"{{name: small, data: {{few: {{path: data.csv}}}}, inference: {tasks}}}\n")
    assert workshop.within("lock", "-q").status == 0
    env = machine(workshop, "570.86.10")
    for words in ((), ("--why",)):
        ran = workshop.within(
            "plan", "run.yaml", *words, "--format", "json", env={**env, "CUDA_VISIBLE_DEVICES": "GPU-7"}
        )
        assert (ran.status, ran.json["ok"], ran.codes) == (0, True, ["gpu-missing", "gpus-hidden"])
        told = "CUDA_VISIBLE_DEVICES='GPU-7' hides 1 of the machine's 1 GPU: there is none called 'GPU-7'"
        assert f"needs@few needs 1 GPU, found none: {told}" in ran.out
        assert f"{told}; gpus: auto takes the CPU" in ran.out
        assert "env -u CUDA_VISIBLE_DEVICES envbuilder plan" in ran.out
    ran = workshop.within("plan", "run.yaml", "--format", "json", env={**env, "CUDA_VISIBLE_DEVICES": "0"})
    assert ran.codes == []


def test_what_is_built_with_torch_is_built_with_the_chosen_one(bench: Workshop, wheels: Path) -> None:
    """`no-build-isolation` gives a build the environment's torch, down to its backend, and each backend its own build."""
    note = """
import torch
pathlib.Path("src/flash").mkdir(parents=True, exist_ok=True)
pathlib.Path("src/flash/__init__.py").write_text(f"WITH = {torch.VERSION!r}")
"""
    system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    facts = {"name": "flash", "version": "1.0", "dependencies": ["torch"]}
    files = {"backend.py": BACKEND + note, "backend/project.json": json.dumps(facts), "pyproject.toml": system}
    make_sdist(wheels, "flash", "1.0", files)
    keys = {"no-build-isolation": ["flash"]}
    bench.plugin("reader", tag="v0.2.0", dependencies=("torch", "flash"), keys=keys)
    lock(bench, "reader")
    env = machine(bench, None)
    for backend in ("cpu", "cu128"):
        build(bench, "reader", "--torch", backend, env=env)
        ran = bench.run("exec", "reader", "--", "python", "-c", "import flash; print(flash.WITH)", env=env)
        assert ran.out.strip() == f"2.8.0+{backend}"
