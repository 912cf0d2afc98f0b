"""Plugins that reach for what others are judged by: what the kernel refuses them, and what is seen where it does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline_bench import ECHO, EXACT, REPORT, Bench, is_alive, wait_for
from workshop import Ran, Workshop

from envbuilder.cli.keeping import StoreKeeper
from envbuilder.config import find_workspace
from envbuilder.errors import UsageError
from envbuilder.store.checkouts import survey
from envbuilder.store.environments import Store
from envbuilder.uv import cache_folder
from pipeline import guard
from pipeline.cli import execute_run
from pipeline.models import Code, Environment

# Does what the run file says, when it is loaded or asked.
DOER = """
import os, sys, time
from pathlib import Path

class Model:
    def load(self, context):
        self.context = context
        self.do("load")

    def predict(self, batch):
        self.do("predict")
        return [item.question for item in batch]

    def do(self, when):
        exec(self.context.params.get(when, ""), {**globals(), "context": self.context})
"""
# A package of its own, as pip would put it there.
OWN = """
(site,) = Path(sys.prefix).glob("lib/python3*/site-packages")
(site / "extra.py").write_text("x = 1")
"""
# A judge that finds everything right.
JUDGE = """
for path in Path(sys.prefix).parent.glob("*/lib/python3*/site-packages/judge/__init__.py"):
    text = path.read_text().replace("record.answer in record.references", "True")
    path.unlink()
    path.write_text(text)
"""
ROWS = "id;question;answer;image\n1;one;one;one.png\n2;two;two;\n3;three;other;\n"
RIGHT = 2 / 3
WALK = {guard.VARIABLE: guard.NOTHING}


def held(kind: str) -> bool:
    """Whether a guard of some kind holds on this machine."""
    argv = [sys.executable, guard.__file__, kind, "/usr"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.startswith(kind)


mounts = pytest.mark.skipif(not held(guard.MOUNTS), reason="the kernel gives this user no mount namespace")
landlock = pytest.mark.skipif(not held(guard.LANDLOCK), reason="the kernel has no Landlock")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A workspace with a plugin that does what it is told, a judge and a report."""
    workshop = Workshop(tmp_path_factory.mktemp("touched"))
    workshop.plugin("doer", code=DOER)
    deed = (
        "import sys\n        from pathlib import Path\n        exec(context.params['deed'], {**globals(), **locals()})"
    )
    workshop.plugin(
        "judge", code=EXACT.replace("self.context = context", deed), keys={"stage": "eval", "entry": "judge:Plugin"}
    )
    workshop.plugin("page", code=REPORT, keys={"stage": "report", "entry": "page:Plugin"})
    workshop.write("data/lines.csv", ROWS)
    assert workshop.within("lock", "-q").status == 0
    assert workshop.within("build", "-q").status == 0
    return workshop


@pytest.fixture
def workshop(built: Workshop) -> Iterator[Workshop]:
    """The workspace; what a test did to its environments is mended afterwards, and its runs are gone."""
    built.write("data/one.png", "an image")
    yield built
    assert built.within("verify", "-q", "--repair").status == 0
    shutil.rmtree(built.work / ".envbuilder/runs", ignore_errors=True)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A workbench on a machine without GPUs, for what needs no store."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path)


def run(
    workshop: Workshop, deeds: Mapping[str, str], *more: str, env: Mapping[str, str] = WALK, judge: str = ""
) -> Ran:
    """Run the three plugins, with deeds of the first, and one of the judge's."""
    return workshop.within("run", str(write_run(workshop, deeds, judge)), "--format", "json", *more, env=env)


def test_answers_that_another_task_rewrites_count_for_nothing(workshop: Workshop) -> None:
    """The journal of a task that has ended is the runner's: what was put into it later is not judged."""
    deed = "path = Path('../../answers/a@lines.jsonl')\npath.write_text(path.read_text().replace('three', 'other'))"
    run_file = write_run(workshop, {})
    document = json.loads(run_file.read_text())
    document["inference"] = [{"plugin": "doer", "id": "a"}, {"plugin": "doer", "id": "b", "params": {"predict": deed}}]
    run_file.write_text(json.dumps(document))
    ran = workshop.within("run", str(run_file), "--format", "json", env=WALK)
    found = {task["id"]: task for task in ran.json["result"]["tasks"]}  # type: ignore[index]
    assert (ran.status, found["a@lines"]["code"], found["b@lines"]["status"]) == (1, "inputs-touched", "ok")
    assert figures(ran) == [RIGHT]
    again = workshop.within("run", str(run_file), "--format", "json")
    assert [task["reused"] for task in again.json["result"]["tasks"][:2]] == [None, ran.json["result"]["id"]]  # type: ignore[index]


def test_weights_that_are_written_to_cost_the_result(bench: Bench) -> None:
    """A new file beside declared weights costs nothing, one that changed costs the result."""
    weights = bench.write("weights/model.bin", "weights")
    for deed, code in (("with_name('new').touch()", None), ("write_text('others')", "inputs-touched")):
        bench.plugin(
            "echo", ECHO.replace("self.context = context", f"__import__('pathlib').Path({str(weights)!r}).{deed}")
        )
        outcome = execute_run(bench.request("inference: [{plugin: echo, weights: [weights]}]"))
        assert (outcome.ok, outcome.tasks[0].code) == (code is None, code)


def test_keeper_sees_what_the_walk_sees(workshop: Workshop) -> None:
    """A seal of another build, and live code that was edited, are told as changes of the environment."""
    code = workshop.write("packages/live/a.py", "x = 1\n").parent
    store = Store(workshop.work / ".envbuilder")
    (key,) = [key for key in Store.keys(store) if (seal := store.seal(key)) and "doer" in seal.distributions]
    digest = survey(code, store.digests).digest
    environment = Environment(
        "doer",
        "inference",
        store.path(key),
        store.path(key) / "bin/python",
        key,
        workshop.work / "cache",
        entry="doer:Model",
        code={"packages/live": Code(digest)},
        seal=store.seal_digest(key),
    )
    keeper = StoreKeeper(find_workspace(workshop.work), [environment])
    assert keeper.changed(environment) is None
    assert keeper.changed(replace(environment, seal="of another build")) == "it was built anew"
    (code / "a.py").write_text("x = 2\n")
    assert keeper.changed(environment) == "the code in packages/live was edited"
    assert code not in keeper.closed(environment)
    assert code in keeper.closed(replace(environment, plugin="other", code={}))


@landlock
def test_landlock_closes_the_same_but_also_the_folders_above(tmp_path: Path) -> None:
    """What is closed cannot be written, what is opened in it can, and above it nothing new can be made."""
    for name in ("state/store", "state/cache", "beside"):
        (tmp_path / name).mkdir(parents=True)
    places = [tmp_path / name for name in ("state/store/x", "state/x", "state/cache/x", "beside/x", "x")]
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(guard.__file__).parents[1])!r})
from pipeline import guard
print(guard.hold([{str(tmp_path / "state")!r}], [{str(tmp_path / "state/cache")!r}], "landlock"))
for place in map(Path, {list(map(str, places))!r}):
    try:
        place.write_text("x")
    except PermissionError:
        pass
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == f"landlock-{guard.landlock_version()}\n"
    assert [place.exists() for place in places] == [False, False, True, True, False]


def test_landlock_is_not_taken_where_it_costs_something(tmp_path: Path) -> None:
    """Folders above a closed one in which this user can make something are what it costs."""
    (tmp_path / "state").mkdir()
    assert str(tmp_path) in guard.costs([str(tmp_path / "state")])


@pytest.mark.parametrize("wanted", ["", guard.LANDLOCK, guard.MOUNTS])
def test_guard_that_fails_fails_no_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    """Where the kernel knows none of its system calls, the worker works, and the record says that nothing held."""
    text = Path(guard.__file__).read_text().replace("= 442", "= 9442").replace("= 444, 445, 446", "= 9444, 9445, 9446")
    monkeypatch.setattr(guard, "__file__", str(bench.write("guard.py", text)))
    monkeypatch.setenv(guard.VARIABLE, wanted)
    bench.plugin("echo", ECHO)
    (task,) = execute_run(bench.request("inference: [{plugin: echo}]")).tasks
    assert (task.status, task.attempts[0].guard) == ("ok", guard.NOTHING)


def test_guard_that_is_none_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that is no guard is refused with those that are."""
    monkeypatch.setenv(guard.VARIABLE, "landlok")
    bench.plugin("echo", ECHO)
    with pytest.raises(UsageError, match="landlok") as refused:
        execute_run(bench.request("inference: [{plugin: echo}]"))
    assert refused.value.hint == "unset ENVBUILDER_GUARD"


def test_doctor_says_what_guards(workshop: Workshop) -> None:
    """The line of the guard names what holds here, and what nothing of it means."""
    told = workshop.within("doctor", "--offline", env=WALK).out
    assert "walk: workers can write everywhere" in " ".join(told.split())


def test_table_of_reach_names_tests_that_are_there() -> None:
    """Each line of the table names tests, all of them there; only what is allowed anyway needs none."""
    root = Path(__file__).parents[2]
    page = (root / "docs/explanation.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ") and line.count("|") == 5]
    known = {
        name for path in (root / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = [re.findall(r"`(test_\w+)`", row[4]) for row in rows[1:]]
    assert len(named) > 10
    assert not {name for names in named for name in names} - known
    assert all(names or row[2].strip() == "yes" for row, names in zip(rows[1:], named, strict=True))


def write_run(workshop: Workshop, deeds: Mapping[str, str], judge: str = "") -> Path:
    """Write a run file of the three plugins, with deeds of the first."""
    entry = {"plugin": "doer", "params": dict(deeds)}
    document = {
        "name": "test",
        "data": {"lines": {"path": "data/lines.csv"}},
        "inference": [entry],
        "eval": [{"plugin": "judge", "params": {"deed": judge}}],
        "report": [{"plugin": "page"}],
    }
    return workshop.write("run.yaml", json.dumps(document))


def tasks(ran: Ran) -> dict[str, dict[str, object]]:
    """The tasks of a run by their stage."""
    return {task["stage"]: task for task in ran.json["result"]["tasks"]}  # type: ignore[index]


def figures(ran: Ran) -> list[float]:
    """What the judge says."""
    return [each["overall"]["exact"] for each in ran.json["result"]["evaluations"]]  # type: ignore[index]


def test_package_installed_while_loading_is_seen_after_the_stage(workshop: Workshop) -> None:
    """A result from an environment that changed meanwhile is marked, told, and never taken over."""
    ran = run(workshop, {"load": OWN})
    task = tasks(ran)["inference"]
    assert (ran.status, task["status"], task["code"]) == (1, "failed", "environment-touched")
    assert "stray: lib/python" in str(task["touched"])
    assert "counts for nothing" in ran.err
    assert ran.codes == ["environment-touched"]
    assert figures(ran) == []
    report = json.loads(Path(str(ran.json["result"]["paths"]["report"])).read_text())  # type: ignore[index]
    assert "extra.py" in report["tasks"][0]["error"]
    exported = workshop.within("runs", "show", "--export", "csv", "--format", "json")
    assert exported.status != 0
    assert "count for nothing" in exported.out
    assert workshop.within("verify", "-q", "--repair").status == 0
    why = workshop.within("plan", "--why", str(workshop.work / "run.yaml"), "--format", "json")
    assert "counts for nothing" in why.json["result"]["why"][0]["why"]  # type: ignore[index]
    resumed = workshop.within("resume", "--format", "json", env=WALK)
    assert len(tasks(resumed)["inference"]["attempts"]) == 2  # type: ignore[arg-type]  # Every item is asked again.
    assert (resumed.status, tasks(resumed)["inference"]["code"]) == (1, "environment-touched")
    assert workshop.within("verify", "-q", "--repair").status == 0
    again = run(workshop, {"load": OWN})
    assert tasks(again)["inference"]["reused"] is None


def test_judge_that_is_changed_while_it_judges_loses_its_figures(workshop: Workshop) -> None:
    """What is found when the stage of judges has ended leaves none of their figures, and the answers stay proved."""
    ran = run(workshop, {}, judge=OWN)
    found = tasks(ran)
    assert (ran.status, found["eval"]["code"], figures(ran)) == (1, "environment-touched", [])
    assert found["inference"]["proved"] is True
    assert not list(workshop.work.glob(".envbuilder/runs/latest/metrics/*.json"))
    report = json.loads(Path(str(ran.json["result"]["paths"]["report"])).read_text())  # type: ignore[index]
    assert report["evaluations"] == []


def test_judge_that_was_tampered_with_does_not_judge(workshop: Workshop) -> None:
    """The environment of the next stage is verified before it starts; after a repair, the figures are the right ones."""
    ran = run(workshop, {"predict": JUDGE})
    found = tasks(ran)
    assert (ran.status, found["eval"]["status"], found["eval"]["code"]) == (1, "failed", "environment-touched")
    assert str(found["eval"]["error"]).startswith("not started: its environment changed meanwhile: changed: lib/python")
    assert figures(ran) == []
    assert found["inference"]["proved"] is True
    hint = ran.json["problems"][0]["hint"]  # type: ignore[index]
    assert workshop.within(*hint.partition(" && ")[0].split()[1:]).status == 0
    resumed = workshop.within("resume", "--format", "json", env=WALK)
    assert (resumed.status, figures(resumed)) == (0, [RIGHT])


@mounts
@pytest.mark.parametrize("deed", [OWN, JUDGE], ids=["own", "judge"])
def test_environments_are_read_only_to_a_worker(workshop: Workshop, deed: str) -> None:
    """The kernel refuses what the walk would find, and the record says so."""
    deeds = {"load": f"try:\n    exec({deed!r})\nexcept OSError as error:\n    print(error)"}
    ran = run(workshop, deeds, env={})
    assert (ran.status, figures(ran)) == (0, [RIGHT])
    assert tasks(ran)["inference"]["attempts"][0]["guard"] == guard.MOUNTS  # type: ignore[index]
    again = run(workshop, deeds, env={})
    assert tasks(again)["inference"]["reused"] == ran.json["result"]["id"]  # type: ignore[index]


@mounts
@pytest.mark.parametrize(
    "path",
    [
        ".envbuilder/digests.sqlite",
        ".envbuilder/new",
        ".envbuilder/store/new",
        ".envbuilder/bytecode/new",
        ".envbuilder/cache/judge/new",
        ".envbuilder/runs/latest/run.json",
        ".envbuilder/runs/latest/answers/doer@lines.jsonl",
        "profiles/registry/doer.yaml",
        "profiles/prod/doer/uv.lock",
    ],
)
def test_what_others_are_judged_by_is_closed(workshop: Workshop, path: str) -> None:
    """State, records, answers, other plugins' caches, registry and locks cannot be written."""
    (workshop.work / ".envbuilder/cache/judge").mkdir(parents=True, exist_ok=True)
    deed = f"open({str(workshop.work / path)!r}, 'a').write('x')"
    ran = run(workshop, {"load": deed}, env={})
    assert "Read-only file system" in str(tasks(ran)["inference"]["error"])


@mounts
def test_uv_cache_and_seeded_bytecode_are_closed(workshop: Workshop) -> None:
    """What environments are links to cannot be written by another name either."""
    deed = (
        "import errno\n"
        f"cache = Path({str(cache_folder())!r})\n"
        "inside = Path(sys.pycache_prefix) / sys.prefix.lstrip('/')\n"
        "for folder in [*cache.glob('archive-v*'), inside]:\n"
        "    try:\n"
        "        (folder / 'new').touch()\n"
        "    except OSError as error:\n"
        "        assert error.errno == errno.EROFS, error\n"
        "    else:\n"
        "        raise AssertionError(folder)\n"
        "(Path(sys.pycache_prefix) / 'new').touch()\n"
    )
    ran = run(workshop, {"load": deed}, env={})
    assert tasks(ran)["inference"]["status"] == "ok", tasks(ran)["inference"]["error"]


@mounts
def test_plugins_write_where_they_always_could(workshop: Workshop, tmp_path: Path) -> None:
    """Beside the data, in the workspace, at home, in temporary folders, in its cache and its working folder."""
    places = [
        workshop.work / "data/new",
        workshop.work / "new/folder/file",
        tmp_path / ".cache/models/file",
        Path("/tmp") / f"{tmp_path.name}-{os.getpid()}",  # noqa: S108 - what others use too
        Path("/dev/shm") / f"{tmp_path.name}-{os.getpid()}",  # noqa: S108 - likewise
    ]
    deed = (
        f"places = [*map(Path, {list(map(str, places))!r}), context.cache_dir / 'file', Path('file'), Path('../file')]\n"
        "for place in places:\n"
        "    place.parent.mkdir(parents=True, exist_ok=True)\n"
        "    place.write_text('x')\n"
        "    place.with_suffix('.draft').write_text('y')\n"
        "    place.with_suffix('.draft').replace(place)\n"
    )
    ran = run(workshop, {"load": deed}, env={"HOME": str(tmp_path)})
    assert tasks(ran)["inference"]["status"] == "ok", tasks(ran)["inference"]["error"]
    assert all(place.read_text() == "y" for place in places)
    for place in places[3:]:
        place.unlink()


def test_image_that_is_replaced_meanwhile_costs_the_result(workshop: Workshop) -> None:
    """Data that were other ones in the end than in the beginning are told, and what came of them does not count."""
    deed = f"Path({str(workshop.work / 'data/one.png')!r}).write_text('another image')"
    ran = run(workshop, {"predict": deed})
    task = tasks(ran)["inference"]
    assert (ran.status, task["code"]) == (1, "inputs-touched")
    assert str(task["error"]).endswith("one.png was written to meanwhile")
    assert tasks(run(workshop, {"predict": deed}))["inference"]["reused"] is None


@pytest.mark.parametrize(("meanwhile", "asked_again"), [("", 1), (OWN, 3)], ids=["as-it-was", "built-anew"])
def test_answers_of_a_killed_run_count_while_the_seal_is_the_same(
    workshop: Workshop, meanwhile: str, asked_again: int
) -> None:
    """Where nobody lived to look, the seal decides: in an environment that was built anew, every item is asked again."""
    asked, gate = workshop.work / "asked", workshop.work / "gate"
    deed = f"""
asked, gate = Path({str(asked)!r}), Path({str(gate)!r})
while asked.exists() and len(asked.read_text()) >= 2 and not gate.exists():
    time.sleep(0.01)
asked.open("a").write("x")
asked.with_name("pid").write_text(str(os.getpid()))
"""
    run_file = write_run(workshop, {"load": meanwhile, "predict": deed})
    for path in (asked, gate):
        path.unlink(missing_ok=True)
    argv = Workshop.argv("run", str(run_file), "-q")
    with subprocess.Popen(argv, cwd=workshop.work, env=Workshop.environment(WALK)) as runner:
        journal = workshop.work / ".envbuilder/runs/latest/answers/doer@lines.jsonl"
        try:
            wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") == 2, "two answers")
        finally:
            runner.send_signal(signal.SIGKILL)
    worker = int((workshop.work / "pid").read_text())
    wait_for(lambda: not is_alive(worker), "the end of the worker")
    gate.touch()
    asked.write_text("")
    assert workshop.within("verify", "-q", "--repair").status == 0
    resumed = workshop.within("resume", "--format", "json", env=WALK)
    assert len(asked.read_text()) == asked_again
    assert figures(resumed) == ([RIGHT] if not meanwhile else [])
