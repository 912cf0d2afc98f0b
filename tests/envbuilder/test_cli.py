"""The command line: its contract with people and with programs."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from workshop import Workshop

import envbuilder.cli
from envbuilder.cli import interruption_in
from envbuilder.errors import Problem
from envbuilder.render import Outcome, envelope

COMMANDS = [
    ["lock"],
    ["lock", "--check"],
    ["check"],
    ["build"],
    ["status"],
    ["path", "alpha"],
    ["plan", "run.yaml"],
    ["run", "run.yaml"],
    ["runs", "list"],
    ["runs", "show"],
    ["diff", "prod", "run:latest"],
    ["why", "alpha", "alpha"],
    ["outdated"],
    ["plan", "run.yaml", "--why"],
    ["resume"],
    ["runs", "diff", "latest"],
]
WORKER = """
class Model:
    def load(self, context):
        pass
    def predict(self, batch):
        return [item.question.upper() for item in batch]
"""


@pytest.fixture
def bench(workshop: Workshop) -> Workshop:
    """A workspace with one inference plugin, a data set of two items and a run file."""
    workshop.plugin("alpha", code=WORKER)
    workshop.write("data.csv", "id;question;answer\n1;a;A\n2;b;B\n")
    workshop.write("run.yaml", "{name: small, data: {few: {path: data.csv}}, inference: [{plugin: alpha}]}\n")
    return workshop


def test_every_command_keeps_the_envelope(bench: Workshop) -> None:
    """`--format json` prints one object with the five keys of the contract, and nothing else on stdout."""
    for command in COMMANDS:
        ran = bench.run(*command, "--format", "json")
        assert ran.status == 0, (command, ran.err)
        assert set(ran.json) == {"schema", "ok", "profile", "result", "problems"}
        assert str(ran.json["schema"]).startswith(f"envbuilder/{command[0]}")
        assert str(ran.json["schema"]).endswith("/1")
        assert ran.json["ok"] is True
        assert ran.json["profile"] == "prod"
        assert ran.json["problems"] == []


@pytest.mark.parametrize(
    "command",
    [
        ["lock", "no-such-plugin"],
        ["lock", "--no-such-option"],
        ["no-such-command"],
        ["build", "--profile", "staging"],
        ["build", "-C", "/nonexistent"],
        ["path"],
        ["path", "alpha"],
        ["run"],
        ["run", "nothing.yaml"],
        ["runs", "show", "no-such-run"],
    ],
)
def test_unusable_requests_end_with_2_and_an_envelope(bench: Workshop, command: list[str]) -> None:
    """Usage errors exit with 2 and, asked for JSON, print the same envelope; in text, an error and a hint."""
    ran = bench.run(*command, "--format", "json")
    assert ran.status == 2
    assert ran.json["ok"] is False
    assert ran.codes
    text = bench.run(*command)
    assert text.status == 2
    assert text.out == ""
    assert text.err.startswith("error[")
    assert "hint: " in text.err


@pytest.mark.parametrize("command", [["lock"], ["check"], ["build"], ["status"], ["run", "run.yaml"]])
def test_broken_registry_is_told_by_every_command(bench: Workshop, command: list[str]) -> None:
    """A typo in a registry file is one error with file, line, column and the nearest key, whoever reads it."""
    bench.write(
        "profiles/registry/alpha.yaml", "name: alpha\nstagee: inference\nentry: alpha:Model\nsource: {pypi: ==1}\n"
    )
    ran = bench.run(*command)
    assert ran.status == 2
    assert "profiles/registry/alpha.yaml:2:1" in ran.err
    assert "did you mean 'stage'?" in ran.err


def test_results_go_to_stdout_and_progress_to_stderr(bench: Workshop) -> None:
    """A pipe gets the result alone; what happens meanwhile is on stderr, in plain lines."""
    ran = bench.within("lock")
    assert ran.out == "1 locked: profiles/prod\n"
    assert ran.err.startswith("+ lock alpha  locked")
    assert "\x1b" not in ran.out + ran.err


def test_quiet_says_nothing_when_all_is_well(bench: Workshop) -> None:
    """`-q` leaves problems only."""
    ran = bench.run("lock", "-q")
    assert (ran.status, ran.out, ran.err) == (0, "", "")


def test_run_mode_names_the_profile_and_an_option_overrides_it(bench: Workshop) -> None:
    """RUN_MODE is the default of --profile; an unknown one is refused."""
    assert bench.run("status", "--format", "json", env={"RUN_MODE": "dev"}).json["profile"] == "dev"
    ran = bench.run("status", "--format", "json", "--profile", "prod", env={"RUN_MODE": "dev"})
    assert ran.json["profile"] == "prod"
    ran = bench.run("status", "--format", "json", env={"RUN_MODE": "production"})
    assert ran.status == 2
    assert ran.codes == ["usage"]


def test_workspace_is_found_from_any_folder_in_it(bench: Workshop) -> None:
    """Commands work from below the workspace, and from elsewhere with -C."""
    assert bench.within("lock").status == 0
    assert bench.run("lock", "--check", cwd=bench.work / "profiles" / "prod").status == 0
    assert bench.run("lock", "--check", "-C", str(bench.work), cwd=bench.root).status == 0
    ran = bench.run("lock", "--check", cwd=bench.root)
    assert ran.status == 2
    assert "no-workspace" in ran.err


def test_exec_becomes_the_command(bench: Workshop) -> None:
    """The exit status, stdin and arguments are the command's own; options after -- are not ours."""
    assert bench.within("lock").status == 0
    assert bench.run("exec", "alpha", "--", "python", "-c", "raise SystemExit(7)").status == 2, "not built yet"
    assert bench.within("build").status == 0
    assert bench.run("exec", "alpha", "--", "python", "-c", "raise SystemExit(7)").status == 7
    ran = bench.run("exec", "alpha", "--", "python", "-c", "import sys; print(sys.argv[1:])", "--format", "json")
    assert ran.out == "['--format', 'json']\n"
    assert bench.run("exec", "alpha", "--", "no-such-program").status == 2


@pytest.mark.parametrize(
    ("words", "statuses"),
    [("--help", {0, 141}), ("status", {0}), ("status --format json", {0}), ("status -C /nowhere", {2})],
)
def test_closed_pipe_is_no_accident(bench: Workshop, words: str, statuses: set[int]) -> None:
    """`envbuilder … | head -1` ends without a word more, and with the exit status of what was done."""
    ours = f"{shlex.join(bench.argv())} {words}"
    for command in (f"{ours} | true", f"{ours} 2>&1 | true"):
        done = subprocess.run(
            ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
            cwd=bench.work,
            env=bench.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in statuses
        assert "Traceback" not in done.stderr
        assert "BrokenPipe" not in done.stderr


def test_common_options_stand_before_the_command_or_after_it(bench: Workshop) -> None:
    """`-C`, `--format` and the others mean the same before the name of a command or of its group; the last one counts."""
    work = str(bench.work)
    ran = bench.within("-C", work, "--profile", "dev", "--format", "json", "status", cwd=bench.root)
    assert (ran.status, ran.json["profile"]) == (0, "dev")
    ran = bench.within(
        "-C", "/nowhere", "--profile", "dev", "status", "-C", work, "--profile", "prod", "--format", "json"
    )
    assert (ran.status, ran.json["profile"]) == (0, "prod")
    assert bench.within("runs", "-C", work, "--format", "json", "list", cwd=bench.root).json["result"] == {"runs": []}
    assert bench.within("-q", "lock").out == ""
    ran = bench.within("-C", "lock", "--format", "json", "status")
    assert (ran.status, ran.json["schema"]) == (2, "envbuilder/status/1")
    assert bench.within("--profile", "prd", "status").status == 2


def test_state_folder_by_a_relative_path_is_refused(bench: Workshop) -> None:
    """It would be another folder wherever a command is given: nothing is made, and the hint says the absolute one."""
    ran = bench.within("status", "--format", "json", env={"ENVBUILDER_HOME": "here"})
    assert (ran.status, ran.codes) == (2, ["usage"])
    assert f"export ENVBUILDER_HOME={bench.work / 'here'}" in ran.out
    assert not (bench.work / "here").exists()


def test_run_builds_what_is_missing_and_exits_by_outcome(bench: Workshop) -> None:
    """`run` after `lock` alone: builds, runs, prints a table, exits 0; a failed item makes it 1."""
    assert bench.within("lock").status == 0
    ran = bench.within("run", "run.yaml")
    assert ran.status == 0, ran.err
    assert "build alpha  built" in ran.err
    assert "alpha@few" in ran.out
    bench.write("data.csv", "id;image;question;answer\n1;gone.png;a;A\n2;;b;B\n")
    ran = bench.within("run", "run.yaml", "--format", "json")
    assert ran.status == 1
    result = ran.json["result"]
    assert isinstance(result, dict)
    assert [(task["status"], task["items"], task["failed_items"]) for task in result["tasks"]] == [("ok", 2, 1)]
    again = f"next: envbuilder resume {result['id']} --retry-failed  # asks 1 failed item again\n"
    assert bench.within("runs", "list").out.endswith(again)
    assert again in bench.within("resume").out
    assert bench.within("runs", "list", "--profile", "dev").out == "no runs in dev yet\n"


def test_lost_answers_fail_whatever_shows_them_and_are_asked_again(bench: Workshop) -> None:
    """`runs show` exits with 1 where answers of a run that had ended are lost; `resume` asks for them, and says so."""
    assert bench.within("lock").status == 0
    assert bench.within("run", "run.yaml").status == 0
    (path,) = (bench.work / ".envbuilder" / "runs" / "latest" / "answers").iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    shown = bench.within("runs", "show", "--format", "json")
    assert (shown.status, shown.json["ok"]) == (1, False)
    assert shown.codes == ["answers-damaged", "answers-missing"]
    resumed = bench.within("resume", "--format", "json")
    assert (resumed.status, resumed.json["ok"]) == (0, True)
    assert "1 of them are in the answers file; that is done again" in resumed.err
    assert (bench.within("runs", "show").status, bench.within("resume").status) == (0, 0)


def test_exit_status_and_ok_never_disagree() -> None:
    """One place decides both, from the problems and from what a command says beside them."""
    error, warning = Problem("a", "b"), Problem("a", "b", severity="warning")
    for problems in ((), (warning,), (error,), (warning, error)):
        for status in (0, 1, 2, 130):
            outcome = Outcome("x", "prod", problems=problems, exit_status=status)
            assert json.loads(envelope(outcome))["ok"] is (outcome.status == 0)
            assert outcome.status == (status or int(error in problems))


def _exits(file: Path) -> list[str]:
    """The functions in a module that end the process."""
    found = []
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
                if name in {"exit", "_exit", "SystemExit", "Exit", "quit"} and not _is_caught(function, node):
                    found.append(f"{file.stem}.{function.name}")
    return sorted(set(found))


def _is_caught(function: ast.FunctionDef, node: ast.AST) -> bool:
    caught = (each.type for each in ast.walk(function) if isinstance(each, ast.ExceptHandler) and each.type)
    return any(node in ast.walk(each) for each in caught)


def test_no_command_ends_the_process_by_itself() -> None:
    """Commands return what they found; the one wrapper that all of them have ends the process by it."""
    package = Path(envbuilder.cli.__file__).parent
    found = [name for file in sorted(package.glob("*.py")) for name in _exits(file)]
    assert set(found) == {"__init__._end", "__init__._main", "__init__.main", "base.common", "base.wrapper"}
    pipeline_files = [
        *package.parents[1].glob("pipeline/cli/*.py"),
        *package.parents[1].glob("pipeline/scheduler/*.py"),
    ]
    assert not [name for file in pipeline_files for name in _exits(file)]
    queue: list[click.Command] = [envbuilder.cli.cli]
    while queue:
        command = queue.pop()
        if isinstance(command, click.Group):
            context = click.Context(command)
            names = command.list_commands(context)
            queue += [each for name in names if (each := command.get_command(context, name)) is not None]
        else:
            assert command.callback is not None
            code = command.callback.__code__
            assert (Path(code.co_filename).name, code.co_name) == ("base.py", "wrapper"), command.name


def test_run_refuses_unlocked_plugins_in_prod(bench: Workshop) -> None:
    """Prod never locks by itself: a run without a lock says which command writes it."""
    ran = bench.within("run", "run.yaml", "--format", "json")
    assert ran.status == 1
    assert ran.codes == ["lock-missing"]


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda shop: shop.write("data.csv", "id;question;answer\n"), "data-empty"),
        (lambda shop: shop.write("data.csv", "id;question;answer\n1;a;A\n1;b;B\n"), "data-duplicate-id"),
        (lambda shop: shop.write("data.csv", "number;question;answer\n1;a;A\n"), "data-column-missing"),
        (lambda shop: (shop.work / "data.csv").unlink(), "data-missing"),
        (
            lambda shop: shop.write(
                "run.yaml", "{name: x, data: {few: {path: data.csv}}, inference: [{plugin: alhpa}]}"
            ),
            "unknown-plugin",
        ),
        (lambda shop: shop.write("run.yaml", "name: [\n"), "config-invalid"),
    ],
)
def test_unusable_runs_are_refused_before_anything_runs(
    bench: Workshop, break_it: Callable[[Workshop], object], code: str
) -> None:
    """Empty data, duplicate ids, missing columns, typos: one error, exit 2, no run recorded."""
    assert bench.within("lock").status == 0
    break_it(bench)
    ran = bench.within("run", "run.yaml", "--format", "json")
    assert (ran.status, ran.codes) == (2, [code])
    assert bench.run("runs", "list", "--format", "json").json["result"] == {"runs": []}


def test_help_needs_no_heavy_import() -> None:
    """`--help` loads neither YAML nor pydantic nor rich: it answers while they would still be loading."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "envbuilder", "--help"], capture_output=True, text=True, check=True
    )
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "click" in loaded
    assert not loaded & {"yaml", "pydantic", "rich", "tomlkit", "packaging", "uv"}


def test_envelope_is_json_that_others_can_read(bench: Workshop) -> None:
    """Non-ASCII text passes unchanged, and durations are plain numbers."""
    ran = bench.run("lock", "--format", "json")
    assert json.loads(ran.out)["result"]["plugins"][0]["plugin"] == "alpha"
    assert isinstance(json.loads(ran.out)["result"]["plugins"][0]["seconds"], float)


def test_tables_show_data_as_it_is(bench: Workshop) -> None:
    """Classes and parameters in square brackets are text, not markup: they show, and break nothing."""
    assert bench.within("lock").status == 0
    bench.write("data.csv", "id;question;answer;class\n1;a;A;[/b] odd\n2;b;B;[red]hot\n")
    bench.write(
        "run.yaml",
        "name: small\ndata: {few: {path: data.csv}}\ninference: [{plugin: alpha, matrix: {suffix: [a, 'b/c']}}]\n",
    )
    ran = bench.within("run", "run.yaml")
    assert ran.status == 0, ran.err
    assert "alpha[suffix=a]@few" in ran.out


def test_full_disk_behind_a_redirection_is_an_error_like_any_other(bench: Workshop) -> None:
    """A result that cannot be written is said in one line, in text and in JSON."""
    for arguments in (["status"], ["status", "--format", "json"]):
        with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
            done = subprocess.run(
                bench.argv(*arguments),
                cwd=bench.work,
                env=bench.environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("error[unwritable]") or arguments[1:]


def test_data_is_looked_at_before_anything_is_built(bench: Workshop) -> None:
    """What is wrong with a table is said at once, not after environments were built for it."""
    assert bench.within("lock").status == 0
    bench.write("data.csv", "id;question;answer\n")
    ran = bench.within("run", "run.yaml", "--format", "json")
    assert (ran.status, ran.codes) == (2, ["data-empty"])
    assert not (bench.work / ".envbuilder" / "store").exists()


def test_run_files_are_found_from_the_workspace(bench: Workshop) -> None:
    """A run file that is not below the working folder is looked for in the workspace that -C names."""
    assert bench.within("lock").status == 0
    assert bench.within("run", "run.yaml", "-C", str(bench.work), cwd=bench.root).status == 0


def test_state_stays_out_of_git(bench: Workshop) -> None:
    """`git add --all` in a workspace without a .gitignore takes nothing of the state along."""
    assert bench.within("lock").status == 0
    bench.git("-C", str(bench.work), "init", "--quiet")
    bench.git("-C", str(bench.work), "add", "--all")
    assert ".envbuilder" not in bench.git("-C", str(bench.work), "ls-files")


def test_core_that_environments_do_not_get_is_a_warning(workshop: Workshop) -> None:
    """Plugins are judged by the current core; where the registry pins another one, `check` says so and stays green."""
    workshop.settings(core={"kernel": '"0.2.0"'})
    workshop.release("kernel", "v0.1.0")
    workshop.entry("kernel", kind="library")
    workshop.plugin("alpha", dependencies=("kernel>=0.1,<0.3",))
    assert workshop.within("lock").status == 0
    ran = workshop.within("check", "--format", "json")
    assert (ran.status, ran.codes) == (0, ["core-not-pinned"])


def test_interruption_is_known_under_any_wrapping() -> None:
    """Ctrl-C in the middle of an import surfaces as some other error, with the interruption behind it."""

    def tripped(*, from_it: bool) -> Exception:
        try:
            try:
                raise KeyboardInterrupt  # noqa: TRY301 - what is caught is the point
            except KeyboardInterrupt as interruption:
                raise KeyError(1) from (interruption if from_it else None)
        except KeyError as error:
            return error

    assert interruption_in(tripped(from_it=True))
    assert interruption_in(tripped(from_it=False))
    assert not interruption_in(KeyError(1))


def test_closed_output_is_no_bug(workshop: Workshop) -> None:
    """Where stdout or stderr is closed nobody is told, and the exit status stands."""
    workshop.plugin("alpha")
    argv = " ".join(map(shlex.quote, workshop.argv("status")))
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f"{argv} {closed}"],
            cwd=workshop.work,
            env=workshop.environment(),
            capture_output=True,
            check=False,
        )
        assert (done.returncode, b"internal-error" in done.stderr) == (0, False)


def test_build_that_may_not_fetch_does_not_say_that_a_tag_moved(workshop: Workshop) -> None:
    """Offline, a commit that was never fetched is just not there yet."""
    workshop.plugin("alpha")
    assert workshop.within("lock").status == 0
    shutil.rmtree(workshop.work / ".envbuilder")
    ran = workshop.within("build", "--offline", "--format", "json", env={"UV_CACHE_DIR": str(workshop.root / "empty")})
    assert ran.codes == ["not-at-hand"]
