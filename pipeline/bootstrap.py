"""The worker's side of an attempt: runs inside a plugin's environment, by that environment's own interpreter.

Standard library only, Python 3.8 and later, and nothing of the host: a plugin's dependencies never meet ours. One
file, if a long one: what it could be split into would have to be found from inside a foreign environment.
Called as ``python -u -s … bootstrap.py PROTOCOL_FD JOBS_FD``: messages go out on the one, the paths of context files,
one a line, come in on the other; the one in work is also in ``ENVBUILDER_CONTEXT``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import json
import math
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple, TypeVar

VERSION = 1
# A plugin may make copies of this process; only this one speaks to the host.
WORKER = os.getpid()
MOST_ANSWER_CHARS = 1_000_000
MOST_ERROR_CHARS = 500
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
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


class RunContext(Context):
    """The context under this runner, which a plugin can also tell what is no answer."""

    channel: ClassVar[Optional[Channel]] = None

    def log(self, text: str) -> None:
        """Have a remark kept with the task, and shown to whoever watches."""
        self._say("log", text=str(text)[:MOST_ERROR_CHARS])

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Tell how far something is that is not counted in items, such as the loading of weights."""
        self._say("progress", done=plain(done), total=plain(total), text=str(text)[:MOST_ERROR_CHARS])

    def metric(self, name: str, value: float) -> None:
        """Have a figure of the plugin's own kept with the task, such as tokens a second; the last one stands."""
        self._say("metric", name=str(name), value=plain(value))

    def _say(self, kind: str, **body: object) -> None:
        if RunContext.channel is not None:
            RunContext.channel.send(kind, **body)


class FailureError(Exception):
    """The whole task has failed, for a known reason."""

    def __init__(self, code: str, message: str, status: str = "failed") -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class TerminatedError(BaseException):
    """A signal asked us to end; not an `Exception`, so that a plugin's own handlers let it pass.

    Attributes:
        was_asked: whether it was raised before: there are handlers that let nothing pass, and leave half of what they
            began behind. What comes of that is no answer, and no item's failure.
        was_interrupted: whether SIGINT came; a `KeyboardInterrupt` without it is the plugin's own.
        number: the signal.
    """

    was_asked: ClassVar[bool] = False
    was_interrupted: ClassVar[bool] = False

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number


class Channel:
    """Sends messages to the host, each a line of JSON on a descriptor of its own.

    In a copy of the worker's process nothing is sent; nor is the lock taken, which a thread may have held when the copy
    was made.
    """

    def __init__(self, descriptor: int, attempt: str) -> None:
        self._descriptor = descriptor
        self._attempt = attempt
        self._sequence = 0
        self._held: List[bytes] = []
        self._guard = threading.Lock()

    def send(self, kind: str, **body: object) -> None:
        """Send a message, after those that are held."""
        if is_copy():
            return
        with self._guard:
            self._add(kind, body)
            block = memoryview(b"".join(self._held))
            self._held.clear()
            while block:
                block = block[os.write(self._descriptor, block) :]

    def hold(self, kind: str, **body: object) -> None:
        """Have a message go out with the next one that is sent; for one that follows at once."""
        if is_copy():
            return
        with self._guard:
            self._add(kind, body)

    def _add(self, kind: str, body: Mapping[str, object]) -> None:
        head = {"v": VERSION, "seq": self._sequence + 1, "attempt": self._attempt, "type": kind}
        # A line begins with a line end too: junk that a plugin left half a line of costs none of ours.
        self._held.append(b"\n" + json.dumps({**body, **head}).encode() + b"\n")
        self._sequence += 1


class Heart:
    """Beats while a job is done: a worker that hangs in foreign code, the interpreter's lock in hand, falls silent."""

    def __init__(self, channel: Channel, every_s: float) -> None:
        self._channel = channel
        self._every_s = every_s
        self._stopped = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def _beat(self) -> None:
        with contextlib.suppress(OSError):  # Nobody listens any more; we shall be ended.
            while not self._stopped.wait(self._every_s):
                self._channel.send("heartbeat")


def main() -> int:
    """Do one job after the other, until there are no more or one of them fails."""
    protocol, jobs = (int(word) for word in sys.argv[1:3])
    for descriptor in (protocol, jobs):
        os.set_inheritable(descriptor, False)
    sys.argv[1:] = []
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, _interrupt)
    _leave_copies_alone()
    worker = Worker()
    try:
        with os.fdopen(jobs, "rb", buffering=0) as stream:
            for line in stream:
                path = os.environ["ENVBUILDER_CONTEXT"] = os.fsdecode(line.rstrip(b"\n"))
                if not do(worker, protocol, json.loads(Path(path).read_text(encoding="utf-8"))):
                    return 1
    except TerminatedError as error:
        sys.stderr.flush()
        _die_by(error.number)
    return 0


def _terminate(number: int, _frame: object) -> None:
    if is_copy():
        _die_by(number)
    TerminatedError.was_asked = True
    raise TerminatedError(number)


def _interrupt(number: int, frame: Any) -> None:
    TerminatedError.was_interrupted = True
    signal.default_int_handler(number, frame)


def _leave_copies_alone() -> None:
    """Have SIGTERM end copies of the worker as it ends other programs, from their first moment on.

    It waits while a copy is made: Python forgets what has come before its own part of a fork is done.
    """
    masks = threading.local()

    def begin() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def end() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def end_in_copy() -> None:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end()

    os.register_at_fork(before=begin, after_in_parent=end, after_in_child=end_in_copy)


def _die_by(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def is_copy() -> bool:
    """Whether this is another process than the worker: one that a plugin made by a fork."""
    return os.getpid() != WORKER


Found = TypeVar("Found")


def foreign(action: Callable[[], Found]) -> Found:
    """Do what the plugin does; whatever it does, only the worker comes back from it, and only while it is wanted."""
    TerminatedError.was_interrupted = False
    try:
        found = action()
    except BaseException as error:
        if is_copy():
            end_copy(error)
        if TerminatedError.was_asked:
            raise TerminatedError from error
        if isinstance(error, KeyboardInterrupt) and TerminatedError.was_interrupted:
            raise TerminatedError(signal.SIGINT) from error
        raise
    if is_copy():
        end_copy(None)
    if TerminatedError.was_asked:
        raise TerminatedError
    return found


def end_copy(error: Optional[BaseException]) -> None:
    """End a copy of the worker as what it did ends it.

    Handlers of the end are left out, as `multiprocessing` leaves them out: they are the worker's, and would end its other
    children or remove its files.
    """
    status = 0 if error is None else 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        status = error.code or 0
    elif error is not None:
        print_trace()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status & 0xFF)


def print_trace() -> None:
    """Write the traceback of what is being handled to the log, where a plugin has left us one."""
    with contextlib.suppress(Exception):
        traceback.print_exc()


def do(worker: Worker, protocol: int, job: Mapping[str, Any]) -> bool:
    """Do one job, and tell how it went."""
    channel = Channel(protocol, job["attempt"])
    usage = Usage()
    with Heart(channel, job["heartbeat_s"]):
        try:
            worker.work(channel, job)
        except FailureError as failure:
            channel.send("failed", code=failure.code, status=failure.status, error=str(failure), **usage.told())
            return False
    channel.send("done", **usage.told())
    return True


class Worker:
    """Holds the plugin from one job to the next: all jobs of a worker are for one plugin with one set of parameters."""

    def __init__(self) -> None:
        self._plugin: Any = None
        self._device = "cpu"

    def work(self, channel: Channel, job: Mapping[str, Any]) -> None:
        """Load the plugin, where that is still to be done, and do the work of its stage."""
        RunContext.channel = channel
        channel.send("hello", python=platform.python_version(), pid=os.getpid())
        if job["command"]:
            channel.send("loaded", load_s=None, warm=False, device=job["device"], **facts(job, job["device"]))
            run_command(channel, job)
            return
        warm = self._plugin is not None
        load_s = 0.0
        if warm:
            sow(job)
        else:
            begin = time.perf_counter()
            self._load(channel, job)
            load_s = time.perf_counter() - begin
        channel.send("loaded", load_s=load_s, warm=warm, device=self._device, **facts(job, self._device))
        {"inference": infer, "eval": evaluate, "report": render}[job["stage"]](channel, job, self._plugin)

    def _load(self, channel: Channel, job: Mapping[str, Any]) -> None:
        factory = find(job["entry"])
        self._device = choose_device(job["device"], channel)
        sow(job)
        context = RunContext(
            params=job["params"],
            device=self._device,
            seed=job["seed"],
            batch=job["batch"],
            cache_dir=Path(job["cache_dir"]),
            output=Path(job["output"]) if job["output"] else None,
        )
        self._plugin = create(factory, job["stage"], context)


def find(entry: str) -> Any:
    """Import ``module:attribute``."""
    module_name, _, attribute = entry.partition(":")
    try:
        found = foreign(lambda: attribute_of(importlib.import_module(module_name), attribute, entry))
    except (FailureError, TerminatedError):
        raise
    except BaseException as error:
        print_trace()
        raise FailureError("plugin-import-failed", "import {}: {}".format(module_name, told(error))) from error
    if not callable(found):
        raise FailureError("plugin-invalid", "entry {}: expected a class, found {}".format(entry, type(found).__name__))
    return found


def attribute_of(found: Any, attribute: str, entry: str) -> Any:
    """An attribute of a module, or one of its attributes' attributes."""
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise FailureError("plugin-invalid", "entry {}: module has no attribute {!r}".format(entry, name))
        found = getattr(found, name)
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


def sow(job: Mapping[str, Any]) -> None:
    """Seed every source of chance that is there; where the run asks for it, leave none to the order of threads."""
    random.seed(job["seed"])
    numpy, torch = module("numpy"), module("torch")
    if numpy is not None:
        numpy.random.seed(job["seed"])
    if torch is not None:
        torch.manual_seed(job["seed"])
        if job["deterministic"]:
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True


def module(name: str) -> Any:
    """A module, or None where it is not installed or broken."""
    try:
        return foreign(lambda: importlib.import_module(name) if importlib.util.find_spec(name) else None)
    except TerminatedError:
        raise
    except BaseException:  # noqa: BLE001 - a broken package may raise anything.
        print_trace()
        return None


class OneByOne:
    """Gives a model with ``predict_on_image``, ``predict_on_images`` or both the shape of the contract."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, batch: Sequence[Item]) -> List[str]:
        return [self._answer(item) for item in batch]

    def _answer(self, item: Item) -> Any:
        images = images_of(item)
        if len(images) < 2 and hasattr(self._model, "predict_on_image"):
            return self._model.predict_on_image("".join(images), item.question)
        if not hasattr(self._model, "predict_on_images"):
            text = "item {!r} has {} images, and {} has no predict_on_images()"
            raise FailureError("plugin-invalid", text.format(item.id, len(images), type(self._model).__name__))
        return self._model.predict_on_images(images, item.question)


def images_of(item: Item) -> List[str]:
    """The paths of an item's images: of all of them, once items can have several."""
    several = getattr(item, "images", None) or ()
    return [str(image) for image in several or (item.image,) if image]


def is_classic(model: Any) -> bool:
    """Whether a class, or a model of it, is one that is asked about one item at a time, and none of the contract's."""
    keeps_contract = hasattr(model, "predict") and hasattr(model, "load")
    return not keeps_contract and (hasattr(model, "predict_on_image") or hasattr(model, "predict_on_images"))


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What a plugin's class is called with.

    Attributes:
        places: arguments that it takes by their place alone.
        names: the others.
        unknown: parameters that it does not take.
        lacking: arguments that it needs and nobody gives.
        known: the names of all that it takes.
    """

    places: Sequence[object] = ()
    names: Mapping[str, object] = dataclasses.field(default_factory=dict)
    unknown: Sequence[str] = ()
    lacking: Sequence[str] = ()
    known: Sequence[str] = ()


def arguments_for(factory: Any, context: Context) -> Arguments:
    """The arguments of a plugin's class or function: parameters by name, and of the rest what the context has."""
    try:
        wanted = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # Classes of compiled modules may not tell.
        return Arguments(names=context.params)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = [each for each in wanted if each.kind not in variadic]
    needed = {each.name for each in known if each.default is inspect.Parameter.empty}
    values: Dict[str, object] = {"device": context.device, "seed": context.seed, "cache_dir": str(context.cache_dir)}
    if "device_map" in needed:
        values["device_map"] = context.device
    values.update(context.params)
    names = {each.name: values[each.name] for each in known if each.name in values}
    lacking = [each.name for each in known if each.name in needed and each.name not in names]
    unknown = [name for name in context.params if name not in names]
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in wanted):
        names.update({name: context.params[name] for name in unknown})
        unknown = []
    places = []
    for each in known:
        if each.kind is inspect.Parameter.POSITIONAL_ONLY:
            value = names.pop(each.name, each.default)
            places.append(value)
    return Arguments(places, names, unknown, lacking, [each.name for each in known])


def construct(factory: Any, context: Context) -> Any:
    """Call a plugin's class by the arguments that it takes by name, or refuse parameters that do not fit them.

    Parameters that it does not take are no mistake where a ``load`` gets them too.
    """
    name = getattr(factory, "__name__", type(factory).__name__)
    arguments = arguments_for(factory, context)
    if arguments.lacking:
        lines = ", ".join("{}: ...".format(each) for each in arguments.lacking)
        text = "{}() needs {}, which params do not give; add to its task in the run file: params: {{{}}}"
        raise FailureError("plugin-invalid", text.format(name, " and ".join(arguments.lacking), lines))
    if isinstance(factory, type) and not hasattr(factory, "load"):
        refuse_unknown(name, arguments)
    plugin = factory(*arguments.places, **arguments.names)
    if is_classic(plugin) and not hasattr(plugin, "load"):
        refuse_unknown(name, arguments)
    return plugin


def refuse_unknown(name: str, arguments: Arguments) -> None:
    """Refuse parameters that a class does not take."""
    import difflib  # Only when something is wrong already.

    for each in arguments.unknown:
        near = difflib.get_close_matches(each, arguments.known, n=1)
        takes = "nearest: " + near[0] if near else "it takes " + (", ".join(arguments.known) or "no arguments")
        raise FailureError(
            "plugin-invalid", "params.{}: {}() takes no argument of that name; {}".format(each, name, takes)
        )


def load(plugin: Any, context: Context) -> None:
    """Have a plugin load what it needs; a model of another time may have a ``load`` that takes nothing."""
    try:
        inspect.signature(plugin.load).bind(context)
    except TypeError:
        if is_classic(plugin):
            plugin.load()
            return
    except ValueError:
        pass  # Methods of compiled modules may not tell what they take.
    plugin.load(context)


def create(factory: Any, stage: str, context: Context) -> Any:
    """Create a plugin, load it, and see that it can do its stage's work."""
    method = {"inference": "predict", "eval": "evaluate", "report": "render"}[stage]
    try:
        # A class of the contract's shape, or of none, takes nothing: its parameters come with `load`.
        by_name = stage == "inference" and (is_classic(factory) or not isinstance(factory, type))
        plugin = foreign(lambda: construct(factory, context) if by_name else factory())
        classic = stage == "inference" and is_classic(plugin)
        if not classic:
            require(plugin, method)
            require(plugin, "load")
        if callable(getattr(plugin, "load", None)):
            foreign(lambda: load(plugin, context))
    except (FailureError, TerminatedError):
        raise
    except BaseException as error:
        print_trace()
        raise FailureError("plugin-load-failed", told(error), memory_status(error) or "failed") from error
    return OneByOne(plugin) if classic else plugin


def require(plugin: Any, method: str) -> None:
    """Refuse a plugin that lacks a method."""
    if not callable(getattr(plugin, method, None)):
        raise FailureError("plugin-invalid", "{} has no method {}()".format(type(plugin).__name__, method))


def infer(channel: Channel, job: Mapping[str, Any], plugin: Any) -> None:
    """Answer all items, batch by batch."""
    items = [make_item(each) for each in job["items"]]
    size = 1 if isinstance(plugin, OneByOne) else job["batch"]
    if size < min(job["batch"], len(items)):
        text = "batches of 1, not of {}: predict_on_image() takes one image a call".format(job["batch"])
        channel.send("degraded", text=text, batch=size)
    inference = Inference(channel, plugin, size, shares_gpu=job["shares_gpu"])
    alone = set(job.get("alone", ()))
    while items:
        batch = first_batch(items, inference.size, alone)
        del items[: len(batch)]
        inference.answer(batch)


def first_batch(items: Sequence[Item], size: int, alone: Set[str]) -> List[Item]:
    """The first items, at most `size`; those that are to be alone are batches of their own."""
    if items[0].id in alone:
        return [items[0]]
    count = 1
    while count < min(size, len(items)) and items[count].id not in alone:
        count += 1
    return list(items[:count])


class Inference:
    """Has batches answered. One that fails is halved, again and again, so that one bad item costs one item.

    Attributes:
        size: the most items of a batch; halved where the GPU has not enough memory for one.
    """

    def __init__(self, channel: Channel, plugin: Any, size: int, *, shares_gpu: bool) -> None:
        self._channel = channel
        self._plugin = plugin
        self._shares_gpu = shares_gpu
        self.size = size

    def answer(self, batch: Sequence[Item], *, again: bool = False) -> None:
        """Have a batch answered; `again` where it is part of one that was not."""
        names = [item.id for item in batch]
        self._channel.send("started", items=names)
        begin = time.perf_counter()
        answers: Optional[List[Any]] = None
        reason: Optional[str] = None
        text = ""
        broken = False
        try:
            answers = foreign(lambda: answers_to(self._plugin, batch))
        except TerminatedError:
            raise
        except FailureError as failure:
            reason, text = failure.code, str(failure)
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything.
            print_trace()
            reason, text, broken = memory_status(error), told(error), has_broken_gpu(error)
        latency_s = (time.perf_counter() - begin) / len(batch)
        if answers is not None:
            for name, answer in zip(names, answers):  # noqa: B905 - Python 3.8; their lengths are equal.
                # The next batch begins at once, or the job is done: either sends it.
                self._channel.hold("answer", item=name, latency_s=latency_s, **answer_body(answer))
        elif broken:
            # Whatever this process would ask of the GPU from now on fails; another process may go on.
            raise FailureError("gpu-broken", text)
        else:
            # Only here is the exception gone, and with it the frames that held on to memory.
            self._fail(batch, reason, text, latency_s, again=again)

    def _fail(self, batch: Sequence[Item], reason: Optional[str], text: str, latency_s: float, *, again: bool) -> None:
        if reason:
            free_memory()
        others = foreign_gpu_memory() if reason == "oom-gpu" and not self._shares_gpu else 0
        if others:
            text = "{}; other processes hold {:.1f} GiB of the GPU".format(text, others / 2**30)
            raise FailureError("gpu-memory-foreign", text, "oom-gpu")
        if len(batch) == 1:
            error = (reason + ": " if reason else "") + text
            self._channel.send("answer", item=batch[0].id, error=error, latency_s=latency_s)
            return
        half = (len(batch) + 1) // 2
        if reason in ("oom-gpu", "oom-host") and half < self.size:
            self.size = half
            self._channel.send("degraded", text="{}: batches of {} from here on".format(reason, half), batch=half)
        if reason not in ("oom-gpu", "oom-host"):
            # The host counts them: a plugin may fail so at every batch of a night.
            kind = "miscounted" if reason == "plugin-invalid" else "failed"
            self._channel.send("degraded", text=text, parted=kind, items=0 if again else len(batch))
        self.answer(batch[:half], again=True)
        self.answer(batch[half:], again=True)


def answers_to(plugin: Any, batch: Sequence[Item]) -> List[Any]:
    """A batch's answers. One that is put in another order, or emptied, is refused: which order the answers have is unknown.

    A batch of one has but one order.
    """
    given = list(batch)
    answers = answers_of(plugin.predict(given), len(batch))
    if len(batch) > 1 and [id(item) for item in given] != [id(item) for item in batch]:
        text = "predict() changed the list of items that it was given; it may sort or take from a copy: list(batch)"
        raise FailureError("plugin-invalid", text)
    return answers


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
        return foreign(lambda: answer_fields(answer))
    except TerminatedError:
        raise
    except BaseException as error:  # noqa: BLE001 - what an answer does when it is looked at is the plugin's too.
        print_trace()
        return {"error": "plugin-invalid: " + told(error)}


def answer_fields(answer: Any) -> Dict[str, object]:
    """The same, by all that an answer may do when it is looked at."""
    text = answer if isinstance(answer, str) else getattr(answer, "text", None)
    if not isinstance(text, str):
        return {"error": "plugin-invalid: expected str or Answer, found " + type(answer).__name__}
    text = str.__str__(text)  # The text of a class that derives from str, without what that class makes of it.
    if len(text) > MOST_ANSWER_CHARS:
        return {"error": "answer-too-long: {} characters, at most {}".format(len(text), MOST_ANSWER_CHARS)}
    return sendable({"answer": text, "extra": {} if isinstance(answer, str) else plain(getattr(answer, "extra", {}))})


def sendable(fields: Dict[str, object]) -> Dict[str, object]:
    """The same fields, of which JSON can be made: of a number with too many digits, say, it cannot."""
    json.dumps(fields)
    return fields


def evaluate(channel: Channel, job: Mapping[str, Any], plugin: Any) -> None:
    """Judge answers."""
    records = [make_record(each) for each in job["records"]]
    found = guarded("plugin-failed", lambda: plugin.evaluate(records))
    channel.send("evaluation", **guarded("plugin-invalid", lambda: figures_of(found)))


def figures_of(found: Any) -> Dict[str, object]:
    """What an eval plugin gave, as a message's fields."""
    if not isinstance(getattr(found, "overall", None), Mapping):
        raise FailureError("plugin-invalid", "evaluate() must give an Evaluation, found " + type(found).__name__)
    return sendable({name: plain(getattr(found, name)) for name in FIGURES if hasattr(found, name)})


def render(channel: Channel, job: Mapping[str, Any], plugin: Any) -> None:
    """Write the report."""
    before = stamp(job["output"])
    guarded("plugin-failed", lambda: plugin.render(job["report"]))
    expect_output(job, before)
    channel.send("rendered", path=job["output"])


def stamp(path: Optional[str]) -> Optional[Tuple[int, int, int]]:
    """What changes where a file is written anew; None where there is none."""
    with contextlib.suppress(OSError):
        if path is not None and Path(path).is_file():
            status = Path(path).stat()
            return status.st_ino, status.st_mtime_ns, status.st_size
    return None


def expect_output(job: Mapping[str, Any], before: Optional[Tuple[int, int, int]]) -> None:
    """Refuse a report stage that wrote nothing; a report that was there before it is not its own."""
    after = stamp(job["output"])
    if after is None or after == before or not after[2]:
        raise FailureError("plugin-invalid", "nothing was written at {}".format(job["output"]))


def guarded(code: str, action: Callable[[], Any]) -> Any:
    """Do what the plugin does, and turn what it raises into the task's failure."""
    try:
        return foreign(action)
    except (FailureError, TerminatedError):
        raise
    except BaseException as error:
        print_trace()
        raise FailureError(code, told(error), memory_status(error) or "failed") from error


def run_command(channel: Channel, job: Mapping[str, Any]) -> None:
    """Run a plugin that is a program; its answers are passed on as it writes them."""
    if job["stage"] == "inference":
        channel.send("started", items=[item["id"] for item in job["items"]])
    before = stamp(job["output"])
    try:
        process = subprocess.Popen(job["command"], stdin=subprocess.DEVNULL)
    except OSError as error:
        text = "cannot start {}: {}".format(job["command"][0], error.strerror or error)
        raise FailureError("command-missing", text) from error
    for number, line in enumerate(follow(job["answers"], lambda: process.poll() is None), 1):
        pass_on(channel, line, "{}:{}".format(job["answers"], number), first=number == 1)
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
        expect_output(job, before)
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


def pass_on(channel: Channel, line: bytes, where: str, *, first: bool = False) -> None:
    """Send one line of a command's answers file; anything else is refused."""
    if first and line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FailureError("plugin-invalid", "{}: expected JSON in UTF-8, found UTF-16".format(where))
    if first and line.startswith(BYTE_ORDER_MARK):
        line = line[len(BYTE_ORDER_MARK) :]
    if not line.strip():
        return
    try:
        found = json.loads(line.decode("utf-8"), object_pairs_hook=without_twins)
    except (ValueError, RecursionError) as error:
        text = "{}: expected an object with item and answer, found no JSON: {}".format(where, error)
        raise FailureError("plugin-invalid", text[:MOST_ERROR_CHARS]) from None
    item = found.pop("item", None) if isinstance(found, dict) else None
    if isinstance(item, bool) or not isinstance(item, (str, int)):
        text = "{}: expected an object with item and answer; item is {}".format(where, brief(item))
        raise FailureError("plugin-invalid", text)
    answer, reason, latency_s = (found.pop(name, None) for name in ("answer", "error", "latency_s"))
    body: Dict[str, object] = {"error": str(reason)[:MOST_ERROR_CHARS]}
    if reason is None:
        if not isinstance(answer, str):
            text = "{}: expected answer to be text, found {}".format(where, brief(answer))
            raise FailureError("plugin-invalid", text)
        body = {"extra": plain(found), **{k: v for k, v in answer_body(answer).items() if k != "extra"}}
    timed = isinstance(latency_s, (int, float)) and not isinstance(latency_s, bool)
    channel.send("answer", item=str(item), latency_s=plain(latency_s) if timed else None, **body)


def without_twins(pairs: Sequence[Tuple[str, Any]]) -> Dict[str, Any]:
    """An object of JSON; one that has a key twice is refused, for only one of its values would count."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError("key {!r} stands there twice".format(next(key for key in keys if keys.count(key) > 1)))
    return found


def brief(value: Any) -> str:
    """A value of JSON in a few words."""
    return json.dumps(value)[:60]


def make_item(fields: Mapping[str, Any]) -> Item:
    """An item from plain JSON."""
    return Item(**{**fields, "image": Path(fields["image"]) if fields["image"] else None})


def make_record(fields: Mapping[str, Any]) -> Record:
    """A record from plain JSON."""
    return Record(**{**fields, "item": make_item(fields["item"]), "references": tuple(fields["references"])})


def told(error: BaseException) -> str:
    """An exception in one short text."""
    return "{}: {}".format(type(error).__name__, text_of(error)).strip(": ")[:MOST_ERROR_CHARS]


def text_of(error: BaseException) -> str:
    """What an exception says, where it can be made to say it."""
    try:
        return foreign(lambda: str.__str__(str(error)))
    except TerminatedError:
        raise
    except BaseException:  # noqa: BLE001 - also what a plugin's exception does when it is looked at is the plugin's.
        return "its text cannot be told"


def memory_status(error: BaseException) -> Optional[str]:
    """``oom-gpu`` or ``oom-host`` where that is what the exception means."""
    if isinstance(error, MemoryError):
        return "oom-host"
    text = text_of(error).lower()
    of_gpu = "cuda out of memory" in text or "cublas_status_alloc_failed" in text or "cuda error: out of memory" in text
    return "oom-gpu" if type(error).__name__ == "OutOfMemoryError" or of_gpu else None


def has_broken_gpu(error: BaseException) -> bool:
    """Whether an error means that this process can no longer use its GPU: CUDA then fails at everything."""
    is_cuda = "cuda error:" in text_of(error).lower() or type(error).__name__ == "AcceleratorError"
    return is_cuda and memory_status(error) is None


def used_cuda() -> Any:
    """Torch's CUDA module, where this process has used it; else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized() else None


def free_memory() -> None:
    """Give back what torch keeps for later."""
    cuda = used_cuda()
    if cuda is not None:
        cuda.empty_cache()


def foreign_gpu_memory() -> int:
    """Bytes of the GPU that other processes hold, where they are enough to matter; else 0."""
    cuda = used_cuda()
    if cuda is None:
        return 0
    free, total = cuda.mem_get_info()
    # What a process needs of the GPU beside torch's own allocations is well below this.
    others = total - free - cuda.memory_reserved() - 2**30
    return int(others) if others > total // 20 else 0


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


class Usage:
    """What is used from now on: of memory the most, of the processor the sum, children that have ended included."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):  # Has the kernel forget the peak so far; see proc(5), clear_refs.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        cuda = used_cuda()
        if cuda is not None:
            cuda.reset_peak_memory_stats()
        self._before_s = cpu_s()

    def told(self) -> Dict[str, object]:
        """Peak memory in bytes and seconds of CPU time."""
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        cuda = used_cuda()
        return {
            "peak_ram_bytes": max(own_peak(own.ru_maxrss * 1024), children.ru_maxrss * 1024),
            "peak_gpu_bytes": None if cuda is None else cuda.max_memory_allocated(),
            "cpu_s": cpu_s() - self._before_s,
        }


def cpu_s() -> float:
    """Seconds of CPU time so far, of this process and its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def own_peak(counted: int) -> int:
    """Our own peak in bytes; `counted`, by getrusage, starts at the size of the process that started us."""
    found = proc_value("/proc/self/status", "VmHWM")
    return int(found.split()[0]) * 1024 if found else counted


if __name__ == "__main__":
    sys.exit(main())
