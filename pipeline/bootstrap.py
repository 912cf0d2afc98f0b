"""The worker's side of an attempt: runs inside a plugin's environment, by that environment's own interpreter.

Standard library only, Python 3.8 and later, and nothing of the host: a plugin's dependencies never meet ours. One
file, if a long one: what it could be split into would have to be found from inside a foreign environment.
Called as ``python -u -s bootstrap.py PROTOCOL_FD DEATH_FD``, with the context's path in ``ENVBUILDER_CONTEXT``.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # The host's own modules stand beside this file; a plugin must not see them.
    _here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - before anything else is imported.
    sys.path[:] = [each for each in sys.path if os.path.realpath(each) != _here]

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import math
import platform
import random
import resource
import signal
import subprocess
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

VERSION = 1
MOST_ANSWER_CHARS = 1_000_000
MOST_ERROR_CHARS = 500
FIGURES = ("overall", "by_class", "by_item", "lower_is_better")
NOTABLE = (
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "accelerate",
    "vllm",
    "flash-attn",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "pillow",
)


@dataclasses.dataclass(frozen=True)
class Item:
    """One question about one image; see the plugin contract."""

    id: str
    image: Optional[Path] = None
    question: str = ""
    doc_class: str = ""
    question_type: str = ""
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Record:
    """An item, what was expected and what was answered; see the plugin contract."""

    item: Item
    references: Tuple[str, ...]
    answer: Optional[str] = None
    error: Optional[str] = None
    latency_s: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Context:
    """Where and how a plugin works; see the plugin contract."""

    params: Mapping[str, object] = dataclasses.field(default_factory=dict)
    device: str = "cpu"
    seed: int = 0
    batch: int = 1
    cache_dir: Optional[Path] = None
    output: Optional[Path] = None


class FailureError(Exception):
    """The whole task has failed, for a known reason."""

    def __init__(self, code: str, message: str, status: str = "failed") -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class TerminatedError(BaseException):
    """The host asked us to end; not an `Exception`, so that a plugin's own handlers let it pass."""


class Channel:
    """Sends messages to the host, each a line of JSON on a descriptor of its own."""

    def __init__(self, descriptor: int, attempt: str) -> None:
        self._descriptor = descriptor
        self._attempt = attempt
        self._sequence = 0
        self._guard = threading.Lock()

    def send(self, kind: str, **body: object) -> None:
        with self._guard:
            self._sequence += 1
            head = {"v": VERSION, "seq": self._sequence, "attempt": self._attempt, "type": kind}
            # A line begins with a line end too: junk that a plugin left half a line of costs none of ours.
            line = memoryview(b"\n" + json.dumps({**body, **head}).encode() + b"\n")
            while line:
                line = line[os.write(self._descriptor, line) :]


def watch(death: int, protocol: int) -> None:
    """Fork a watcher that takes the whole session down when the host is gone, however it went."""
    if os.fork():
        os.close(death)
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.close(protocol)
    while os.read(death, 1):
        pass
    own, session = os.getpid(), os.getsid(0)
    for _ in range(100):
        others = [process for process in session_members(session) if process != own]
        if not others:
            break
        for process in others:
            kill(process)
        time.sleep(0.02)
    os.killpg(0, signal.SIGKILL)


def session_members(session: int) -> List[int]:
    """Living processes of a session, zombies left out."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                # The name, in brackets, may hold anything, brackets too.
                state, _, _, its = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:4]
                if int(its) == session and state not in (b"Z", b"X"):
                    found.append(int(folder.name))
    return found


def kill(process: int) -> None:
    """Kill a process that may be gone already."""
    with contextlib.suppress(OSError):
        os.kill(process, signal.SIGKILL)


def main() -> int:
    """Do one attempt."""
    protocol, death = (int(word) for word in sys.argv[1:3])
    watch(death, protocol)
    os.set_inheritable(protocol, False)
    sys.argv[1:] = []
    signal.signal(signal.SIGTERM, _terminate)
    job = json.loads(Path(os.environ["ENVBUILDER_CONTEXT"]).read_text(encoding="utf-8"))
    channel = Channel(protocol, job["attempt"])
    try:
        work(channel, job)
    except TerminatedError:
        sys.stderr.flush()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    except FailureError as failure:
        channel.send("failed", code=failure.code, status=failure.status, error=str(failure), **usage())
        return 1
    return 0


def _terminate(_number: int, _frame: object) -> None:
    raise TerminatedError


def work(channel: Channel, job: Mapping[str, Any]) -> None:
    """Load the plugin and do the work of its stage."""
    channel.send("hello", python=platform.python_version(), pid=os.getpid())
    if job["command"]:
        channel.send("loaded", load_s=None, device=job["device"], **facts(job, job["device"]))
        run_command(channel, job)
        channel.send("done", **usage())
        return
    begin = time.perf_counter()
    factory = find(job["entry"])
    device = choose_device(job["device"], channel)
    sow(job["seed"])
    plugin = create(factory, job["stage"], make_context(job, device))
    channel.send("loaded", load_s=time.perf_counter() - begin, device=device, **facts(job, device))
    {"inference": infer, "eval": evaluate, "report": render}[job["stage"]](channel, job, plugin)
    channel.send("done", **usage())


def make_context(job: Mapping[str, Any], device: str) -> Context:
    """The plugin's context from the job's."""
    return Context(
        params=job["params"],
        device=device,
        seed=job["seed"],
        batch=job["batch"],
        cache_dir=Path(job["cache_dir"]),
        output=Path(job["output"]) if job["output"] else None,
    )


def find(entry: str) -> Any:
    """Import ``module:attribute``."""
    module_name, _, attribute = entry.partition(":")
    try:
        found = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        raise FailureError("plugin-import-failed", "import {}: {}".format(module_name, told(error))) from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise FailureError("plugin-invalid", "entry {}: module has no attribute {!r}".format(entry, name))
        found = getattr(found, name)
    if not callable(found):
        raise FailureError("plugin-invalid", "entry {}: expected a class, found {}".format(entry, type(found).__name__))
    return found


def choose_device(wanted: str, channel: Channel) -> str:
    """``cuda`` where the attempt holds a GPU that the environment's torch, if it has one, can use."""
    if wanted != "cuda":
        return "cpu"
    torch = module("torch")
    if torch is None or torch.cuda.is_available():
        return "cuda"
    channel.send("log", text="a GPU is there, but torch {} cannot use it; runs on the CPU".format(torch.__version__))
    return "cpu"


def sow(seed: int) -> None:
    """Seed every source of chance that is there."""
    random.seed(seed)
    numpy, torch = module("numpy"), module("torch")
    if numpy is not None:
        numpy.random.seed(seed)
    if torch is not None:
        torch.manual_seed(seed)


def module(name: str) -> Any:
    """A module, or None where it is not installed or broken."""
    try:
        return importlib.import_module(name) if importlib.util.find_spec(name) else None
    except Exception:  # noqa: BLE001 - a broken package may raise anything.
        traceback.print_exc()
        return None


class OneByOne:
    """Gives a model with ``predict_on_image`` the shape of the contract."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, batch: Sequence[Item]) -> List[str]:
        return [self._model.predict_on_image(str(item.image or ""), item.question) for item in batch]


def create(factory: Any, stage: str, context: Context) -> Any:
    """Create a plugin, load it, and see that it can do its stage's work."""
    method = {"inference": "predict", "eval": "evaluate", "report": "render"}[stage]
    try:
        plugin = factory()
        classic = stage == "inference" and not hasattr(plugin, method) and hasattr(plugin, "predict_on_image")
        if not classic:
            require(plugin, method)
            require(plugin, "load")
        if callable(getattr(plugin, "load", None)):
            plugin.load(context)
    except FailureError:
        raise
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        raise FailureError("plugin-load-failed", told(error), memory_status(error) or "failed") from error
    return OneByOne(plugin) if classic else plugin


def require(plugin: Any, method: str) -> None:
    """Refuse a plugin that lacks a method."""
    if not callable(getattr(plugin, method, None)):
        raise FailureError("plugin-invalid", "{} has no method {}()".format(type(plugin).__name__, method))


def infer(channel: Channel, job: Mapping[str, Any], plugin: Any) -> None:
    """Answer all items, batch by batch."""
    items = [make_item(each) for each in job["items"]]
    for batch in batches(items, 1 if isinstance(plugin, OneByOne) else job["batch"], set(job.get("alone", ()))):
        answer_batch(channel, plugin, batch)


def batches(items: Sequence[Item], size: int, alone: Set[str]) -> Iterator[List[Item]]:
    """Items in their order, at most `size` at once; those that are to be alone are batches of their own."""
    batch: List[Item] = []
    for item in items:
        if batch and (len(batch) == size or item.id in alone or batch[0].id in alone):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def answer_batch(channel: Channel, plugin: Any, batch: Sequence[Item]) -> None:
    """Answer a batch; where it raises, its items one by one, so that one bad item costs one item."""
    channel.send("started", items=[item.id for item in batch])
    begin = time.perf_counter()
    answers: Optional[List[Any]] = None
    reason: Optional[str] = None
    text = ""
    try:
        answers = answers_of(plugin.predict(batch), len(batch))
    except FailureError as failure:
        reason, text = failure.code, str(failure)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything.
        traceback.print_exc()
        reason, text = memory_status(error), told(error)
    latency_s = (time.perf_counter() - begin) / len(batch)
    if answers is not None:
        for item, answer in zip(batch, answers):  # noqa: B905 - Python 3.8; their lengths are equal.
            channel.send("answer", item=item.id, latency_s=latency_s, **answer_body(answer))
        return
    # Only here is the exception gone, and with it the frames that held on to memory.
    if reason:
        free_memory()
    if len(batch) > 1:
        for item in batch:
            answer_batch(channel, plugin, [item])
    else:
        channel.send("answer", item=batch[0].id, error=(reason + ": " if reason else "") + text, latency_s=latency_s)


def answers_of(found: Any, count: int) -> List[Any]:
    """A batch's answers, as many as it has items; what each of them is, is not looked at."""
    if isinstance(found, (str, bytes, Mapping)):
        raise FailureError("plugin-invalid", "expected a list of answers, found " + type(found).__name__)
    answers = list(found)
    if len(answers) != count:
        raise FailureError("plugin-invalid", "predict() got {} items and gave {} answers".format(count, len(answers)))
    return answers


def answer_body(answer: Any) -> Dict[str, object]:
    """An answer as a message's fields; what is none is that item's error."""
    try:
        text = answer if isinstance(answer, str) else getattr(answer, "text", None)
        if not isinstance(text, str):
            return {"error": "plugin-invalid: expected str or Answer, found " + type(answer).__name__}
        if len(text) > MOST_ANSWER_CHARS:
            return {"error": "answer-too-long: {} characters, at most {}".format(len(text), MOST_ANSWER_CHARS)}
        return {"answer": text, "extra": {} if isinstance(answer, str) else plain(getattr(answer, "extra", {}))}
    except Exception as error:  # noqa: BLE001 - what stands beside an answer is the plugin's too.
        traceback.print_exc()
        return {"error": "plugin-invalid: " + told(error)}


def evaluate(channel: Channel, job: Mapping[str, Any], plugin: Any) -> None:
    """Judge answers."""
    records = [make_record(each) for each in job["records"]]
    found = guarded("plugin-failed", lambda: plugin.evaluate(records))
    if not isinstance(getattr(found, "overall", None), Mapping):
        raise FailureError("plugin-invalid", "evaluate() must give an Evaluation, found " + type(found).__name__)
    figures = guarded("plugin-invalid", lambda: {n: plain(getattr(found, n)) for n in FIGURES if hasattr(found, n)})
    channel.send("evaluation", **figures)


def render(channel: Channel, job: Mapping[str, Any], plugin: Any) -> None:
    """Write the report."""
    guarded("plugin-failed", lambda: plugin.render(job["report"]))
    expect_output(job)
    channel.send("rendered", path=job["output"])


def expect_output(job: Mapping[str, Any]) -> None:
    """Refuse a report stage that wrote nothing."""
    if not Path(job["output"]).is_file():
        raise FailureError("plugin-invalid", "nothing was written at {}".format(job["output"]))


def guarded(code: str, action: Callable[[], Any]) -> Any:
    """Do what the plugin does, and turn what it raises into the task's failure."""
    try:
        return action()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        raise FailureError(code, told(error), memory_status(error) or "failed") from error


def run_command(channel: Channel, job: Mapping[str, Any]) -> None:
    """Run a plugin that is a program; its answers are passed on as it writes them."""
    if job["stage"] == "inference":
        channel.send("started", items=[item["id"] for item in job["items"]])
    try:
        process = subprocess.Popen(job["command"], stdin=subprocess.DEVNULL)
    except OSError as error:
        text = "cannot start {}: {}".format(job["command"][0], error.strerror or error)
        raise FailureError("command-missing", text) from error
    for number, line in enumerate(follow(job["answers"], lambda: process.poll() is None), 1):
        pass_on(channel, line, "{}:{}".format(job["answers"], number))
    if process.returncode:
        how = (
            "signal {}".format(-process.returncode) if process.returncode < 0 else "exit {}".format(process.returncode)
        )
        status = "killed" if process.returncode < 0 else "failed"
        raise FailureError("command-failed", "{} ended by {}".format(job["command"][0], how), status)
    if job["stage"] == "eval":
        found = guarded("plugin-invalid", lambda: json.loads(Path(job["evaluation"]).read_text(encoding="utf-8")))
        if not isinstance(found, dict) or not isinstance(found.get("overall"), dict):
            raise FailureError("plugin-invalid", "{}: expected an object with overall".format(job["evaluation"]))
        channel.send("evaluation", **{name: plain(found[name]) for name in FIGURES if name in found})
    elif job["stage"] == "report":
        expect_output(job)
        channel.send("rendered", path=job["output"])


def follow(path: str, alive: Callable[[], bool]) -> Iterator[bytes]:
    """Whole lines of a file as they are written, and what is left once the writer has ended."""
    rest, position, more = b"", 0, True
    while more:
        more = alive()
        if Path(path).is_file():
            with Path(path).open("rb") as stream:
                stream.seek(position)
                block = stream.read()
            position += len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
        if more:
            time.sleep(0.05)
    if rest:
        yield rest


def pass_on(channel: Channel, line: bytes, where: str) -> None:
    """Send one line of a command's answers file; anything else is refused."""
    if not line.strip():
        return
    try:
        found = json.loads(line.decode("utf-8"))
        item = str(found.pop("item"))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise FailureError("plugin-invalid", "{}: expected an object with item and answer".format(where)) from None
    answer, reason, latency_s = (found.pop(name, None) for name in ("answer", "error", "latency_s"))
    body: Dict[str, object] = {"error": str(reason)[:MOST_ERROR_CHARS]}
    if reason is None:
        if not isinstance(answer, str):
            raise FailureError("plugin-invalid", "{}: expected answer to be text".format(where))
        body = {"extra": plain(found), **{k: v for k, v in answer_body(answer).items() if k != "extra"}}
    channel.send("answer", item=item, latency_s=latency_s if isinstance(latency_s, (int, float)) else None, **body)


def make_item(fields: Mapping[str, Any]) -> Item:
    """An item from plain JSON."""
    return Item(**{**fields, "image": Path(fields["image"]) if fields["image"] else None})


def make_record(fields: Mapping[str, Any]) -> Record:
    """A record from plain JSON."""
    return Record(**{**fields, "item": make_item(fields["item"]), "references": tuple(fields["references"])})


def told(error: BaseException) -> str:
    """An exception in one short text."""
    return "{}: {}".format(type(error).__name__, error).strip(": ")[:MOST_ERROR_CHARS]


def memory_status(error: BaseException) -> Optional[str]:
    """``oom-gpu`` or ``oom-host`` where that is what the exception means."""
    if isinstance(error, MemoryError):
        return "oom-host"
    text = str(error).lower()
    of_gpu = "cuda out of memory" in text or "cublas_status_alloc_failed" in text or "cuda error: out of memory" in text
    return "oom-gpu" if type(error).__name__ == "OutOfMemoryError" or of_gpu else None


def free_memory() -> None:
    """Give back what torch keeps for later."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def plain(value: Any) -> Any:
    """A value as strict JSON knows it: numpy's numbers and arrays too; what is not finite becomes None."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return plain(getattr(value, method)())
    return str(value)


def facts(job: Mapping[str, Any], device: str) -> Dict[str, object]:
    """What the plugin runs on: the device's name and the versions of what matters."""
    from importlib import metadata

    versions = {"python": platform.python_version()}
    for name in (*NOTABLE, job["plugin"]):
        with contextlib.suppress(metadata.PackageNotFoundError, ValueError):
            versions[name] = metadata.version(name)
    torch = sys.modules.get("torch")
    name = job["gpu_name"] if device == "cuda" else processor()
    if torch is not None and device == "cuda":
        name = torch.cuda.get_device_name(0)
        versions["cuda"] = str(torch.version.cuda)
    return {"device_name": name or "", "versions": versions}


def processor() -> str:
    """The processor's own name."""
    return proc_value("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def proc_value(path: str, key: str) -> Optional[str]:
    """The first value of a key in one of the kernel's listings."""
    with contextlib.suppress(OSError), Path(path).open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return None


def usage() -> Dict[str, object]:
    """Peak memory in bytes and seconds of CPU time, the children's that have ended included."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "peak_ram_bytes": max(own_peak(own.ru_maxrss * 1024), children.ru_maxrss * 1024),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if torch is not None and on_gpu else None,
        "cpu_s": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
    }


def own_peak(counted: int) -> int:
    """Our own peak in bytes; `counted`, by getrusage, starts at the size of the process that started us."""
    found = proc_value("/proc/self/status", "VmHWM")
    return int(found.split()[0]) * 1024 if found else counted


if __name__ == "__main__":
    sys.exit(main())
