"""GPUs and CPU capacity are handed out as asked for, and taken back only when they are free."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_bench import ECHO

from envbuilder.gpus import Driver, Gpu, GpuProcess
from pipeline.cli import execute_run, machine_problems, plan_run
from pipeline.models import Wish
from pipeline.slots import Slot, Slots, allowed, thread_variables, units

if TYPE_CHECKING:
    from pipeline_bench import Bench

_GIB = 2**30
MACHINES = Path(__file__).parents[1] / "machines"
GPUS = tuple(Gpu(index, f"GPU-{index}abc", "H100", 80 * _GIB, 79 * _GIB) for index in range(3))
PARTS = tuple(Gpu(0, f"MIG-{name}", "H100 MIG 1g.10gb", 10 * _GIB, 10 * _GIB) for name in ("one11111", "two22222"))


class Machine:
    """A driver that can be told what to tell."""

    def __init__(self, *gpus: Gpu) -> None:
        self.gpus = {gpu.uuid: gpu for gpu in gpus}

    def __call__(self) -> Driver:
        return Driver("570.1", (12, 8), tuple(self.gpus.values()))

    def use(self, number: int, used_gib: float, *pids: int) -> None:
        """Have so much of a GPU be in use, by these processes."""
        gpu = GPUS[number]
        processes = tuple(GpuProcess(pid, int(used_gib * _GIB)) for pid in pids)
        free = int(79 * _GIB - used_gib * _GIB)
        self.gpus[gpu.uuid] = replace(gpu, free_bytes=free, processes=processes)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is asked each time."""
    monkeypatch.setattr("pipeline.slots._LOOK_EVERY_S", 0.0)


def _slots(*gpus: Gpu, jobs: int = 1) -> Slots:
    return Slots(Machine(*gpus), jobs=jobs)


def recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> Slots:
    """The slots of a machine whose `nvidia-smi` somebody has shown; each record names its source."""
    monkeypatch.setenv("ENVBUILDER_NVML", str(MACHINES / f"{name}.json"))
    return Slots()


def test_real_idle_machines_are_handed_out_gpu_by_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What drivers keep for themselves, half a gigabyte on some, makes no GPU look taken."""
    for name in ("quadro-rtx-4000-pair", "rtx-4090-pair"):
        slots = recorded(name, monkeypatch)
        taken = [slots.take(Wish(gpus=1)) for _ in range(3)]
        assert [slot.label if slot else slots.refusal.text for slot in taken] == [
            "gpu0",
            "gpu1",
            "gpu0 is taken; gpu1 is taken",
        ], name
    large = Wish(gpus=1, vram_bytes=16 * _GIB)
    assert recorded("quadro-rtx-4000-pair", monkeypatch).lacking(large) == (
        "needs 16.0 GiB on a GPU, the largest has 8.0 GiB"
    )
    assert recorded("rtx-4090-pair", monkeypatch).lacking(large) is None


def test_real_busy_machine_is_waited_for_or_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server fills both GPUs, and the driver lists no process: whole GPUs wait, a small wish for memory does not."""
    slots = recorded("rtx-5090-pair-in-use", monkeypatch)
    assert slots.take(Wish(gpus=1)) is None
    assert slots.refusal.may_pass
    assert slots.refusal.text == "gpu0 is used by others: 26.2 GiB; gpu1 is used by others: 26.2 GiB"
    assert slots.take(Wish(gpus=1, vram_bytes=5 * _GIB)) is None
    assert slots.refusal.text == "gpu0 has 4.0 GiB free, 5.0 GiB are wanted; gpu1 has 4.0 GiB free, 5.0 GiB are wanted"
    small = slots.take(Wish(gpus=0.5, vram_bytes=3 * _GIB))
    assert small is not None
    assert small.label == "gpu0"


def test_real_shared_node_gives_the_part_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU whole and somebody's, one in parts of which one is free: that part is taken, and no other."""
    slots = recorded("a100-partly-mig", monkeypatch)
    part = slots.take(Wish(gpus=None))
    assert part is not None
    assert part.variables()["CUDA_VISIBLE_DEVICES"] == "MIG-a1000006-0000-0000-0000-000000000000"
    assert slots.take(Wish(gpus=None)) is None
    assert slots.refusal.text == (
        "gpu0 is used by others: 20.0 GiB (process 55111); "
        "gpu1/a1000003 is used by others: 14.0 GiB (process 34965, 56597); "
        "gpu1/a1000005 is used by others: 9.6 GiB (process 46505); gpu1/a1000006 is taken"
    )


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2]),
        ("2,0", [2, 0]),
        ("GPU-1", [1]),
        ("1,7,0", [1]),
        ("-1", []),
        ("GPU", []),
        ("", []),
        ("1,1", [1]),
    ],
)
def test_visible_devices_are_respected(visible: str | None, indices: list[int]) -> None:
    """CUDA_VISIBLE_DEVICES limits and orders the GPUs as CUDA itself would."""
    assert [gpu.index for gpu in allowed(GPUS, visible)] == indices


@pytest.mark.parametrize(
    ("visible", "text"),
    [
        ("", "CUDA_VISIBLE_DEVICES is empty and hides 3 of the machine's 3 GPUs"),
        ("-1", "CUDA_VISIBLE_DEVICES='-1' hides 3 of the machine's 3 GPUs"),
        ("7", "CUDA_VISIBLE_DEVICES='7' hides 3 of the machine's 3 GPUs: there is none called '7'"),
        ("all", "CUDA_VISIBLE_DEVICES='all' hides 3 of the machine's 3 GPUs: there is none called 'all'"),
        ("GPU", "CUDA_VISIBLE_DEVICES='GPU' hides 3 of the machine's 3 GPUs: 'GPU' names several"),
        ("1,1,0", "CUDA_VISIBLE_DEVICES='1,1,0' hides 2 of the machine's 3 GPUs: '1' names one twice"),
        ("1,7,0", "CUDA_VISIBLE_DEVICES='1,7,0' hides 2 of the machine's 3 GPUs: there is none called '7'"),
        ("2,0", "CUDA_VISIBLE_DEVICES='2,0' hides 1 of the machine's 3 GPUs"),
        ("0,1,2", None),
    ],
)
def test_a_variable_that_hides_gpus_is_named(visible: str, text: str | None) -> None:
    """Where too few GPUs are found, the variable that hides the others is told, and what is wrong with it."""
    slots = Slots(Machine(*GPUS), visible=visible)
    assert (slots.hiding.text if slots.hiding else None) == text
    count = len(slots.gpus)
    if text:
        assert slots.lacking(Wish(3.0)) == f"needs 3 GPUs, found {count or 'none'}: {text}"
        assert slots.hiding is not None
        assert slots.hiding.meant == (visible == "2,0")
    slot = slots.take(Wish(None))
    assert slot is not None
    assert slot.remark == ("" if count else f"gpus: auto takes the CPU: {text}")


def test_a_gpu_in_parts_is_named_by_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of a GPU that is split names none of its parts, and that is told; the start of a part's name may."""
    monkeypatch.setenv("ENVBUILDER_NVML", str(MACHINES / "a100-partly-mig.json"))
    parts = [gpu for gpu in Slots().gpus if gpu.uuid.startswith("MIG-")]
    slots = Slots(visible=str(parts[0].index))
    assert slots.hiding is not None
    assert "is split into parts, which have names of their own" in slots.hiding.text
    for length in (4, len(parts[0].uuid)):
        slots = Slots(visible=parts[0].uuid[:length])
        assert slots.hiding is not None
        assert len(slots.gpus) == (1 if length > 4 or len(parts) == 1 else 0)


def test_a_container_that_is_given_no_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no driver, the variable by which containers get GPUs is named if it gives none."""
    for value in ("void", "none", ""):
        monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", value)
        assert f"NVIDIA_VISIBLE_DEVICES={value!r} gives this container none" in str(_slots().lacking(Wish(1.0)))
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "all")
    assert _slots().lacking(Wish(1.0)) == "needs 1 GPU, found none"


def test_a_run_on_the_cpu_says_which_variable_hides_the_gpus(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """`gpus: auto` that takes the CPU for a variable's sake is a note of the task; a task that needs a GPU names it too."""
    record = bench.write("driver.json", json.dumps(asdict(Machine(*GPUS)())))
    monkeypatch.setenv("ENVBUILDER_NVML", str(record))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "cuda")
    bench.plugin("echo", ECHO)
    bench.plugin("other", ECHO)
    request = bench.request("inference: [{plugin: echo}, {plugin: other, gpus: 1}]\n")
    told = "CUDA_VISIBLE_DEVICES='cuda' hides 3 of the machine's 3 GPUs: there is none called 'cuda'"
    problems = machine_problems(plan_run(request))
    assert [each.code for each in problems] == ["gpu-missing", "gpus-hidden"]
    assert all(told in each.message and each.severity == "warning" for each in problems)
    echo, other = execute_run(request).tasks
    assert echo.notes == (f"gpus: auto takes the CPU: {told}",)
    assert other.error == f"needs 1 GPU, found none: {told}"


def test_auto_is_a_gpu_or_the_processor() -> None:
    """Where there is a GPU auto takes one, else the CPU."""
    slots = _slots(GPUS[0])
    first = slots.take(Wish(None))
    assert first is not None
    assert (first.device, first.label, slots.take(Wish(None))) == ("cuda", "gpu0", None)
    slots.give_back(first)
    assert slots.take(Wish(None)) is not None
    without = _slots().take(Wish(None))
    assert without is not None
    assert (without.device, without.label) == ("cpu", "cpu")


def test_whole_gpus_are_exclusive_and_shares_gather() -> None:
    """Shares of one GPU go together, so that others stay whole."""
    slots = _slots(*GPUS[:2])
    half, other_half = slots.take(Wish(0.5)), slots.take(Wish(0.5))
    assert half is not None
    assert other_half is not None
    assert half.gpus == other_half.gpus
    whole = slots.take(Wish(1.0))
    assert whole is not None
    assert whole.gpus != half.gpus
    assert slots.take(Wish(0.1)) is None
    slots.give_back(half)
    assert slots.take(Wish(1.0)) is None
    assert slots.take(Wish(0.5)) is not None


def test_several_gpus_are_taken_together() -> None:
    """Two GPUs are granted at once or not at all."""
    slots = _slots(*GPUS)
    two = slots.take(Wish(2.0))
    assert two is not None
    assert (len(two.gpus), two.label) == (2, "gpu0+gpu1")
    assert slots.take(Wish(2.0)) is None
    assert slots.take(Wish(1.0)) is not None


def test_jobs_limit_what_shares_the_processor() -> None:
    """The CPU takes as many attempts as asked for, and a GPU's attempt is none of them."""
    slots = _slots(GPUS[0], jobs=2)
    taken = [slots.take(Wish(count)) for count in (0.0, 0.0, 0.0, 1.0)]
    assert [slot is not None for slot in taken] == [True, True, False, True]


@pytest.mark.parametrize(
    ("wish", "gpus", "reason"),
    [
        (Wish(4.0), GPUS, "needs 4 GPUs, found 3"),
        (Wish(0.5), (), "needs 0.5 GPU, found none"),
        (Wish(None), (), None),
        (Wish(0.0), (), None),
        (Wish(1.0, vram_bytes=100 * _GIB), GPUS, "needs 100.0 GiB on a GPU, the largest has 80.0 GiB"),
    ],
)
def test_wish_that_can_never_be_granted_is_told(wish: Wish, gpus: tuple[Gpu, ...], reason: str | None) -> None:
    """What the machine does not have is said at once."""
    assert _slots(*gpus).lacking(wish) == reason


def test_gpu_of_others_is_waited_for() -> None:
    """A GPU on which somebody else computes is not handed out whole; who it is, and how much, is told."""
    machine = Machine(*GPUS[:1])
    machine.use(0, 12, 4242)
    slots = Slots(machine)
    assert slots.take(Wish(1.0)) is None
    assert slots.refusal.text == "gpu0 is used by others: 12.0 GiB (process 4242)"
    assert slots.refusal.may_pass
    machine.use(0, 0)
    assert slots.take(Wish(1.0)) is not None


def test_use_that_the_driver_lists_no_process_for_is_seen() -> None:
    """In a container the processes of others are not listed, but their memory is counted."""
    machine = Machine(*GPUS[:1])
    machine.use(0, 20)
    slots = Slots(machine)
    assert slots.take(Wish(1.0)) is None
    assert "used by others" in slots.refusal.text


def test_vram_picks_a_gpu_with_that_much_free_whoever_uses_the_rest() -> None:
    """Who says how much memory is needed gets a GPU that has it, beside others."""
    machine = Machine(*GPUS[:2])
    machine.use(0, 60, 1)
    machine.use(1, 30, 2)
    slots = Slots(machine)
    slot = slots.take(Wish(1.0, vram_bytes=40 * _GIB))
    assert slot is not None
    assert slot.label == "gpu1"
    assert slots.take(Wish(1.0, vram_bytes=40 * _GIB)) is None
    assert "gpu0 has 19.0 GiB free, 40.0 GiB are wanted" in slots.refusal.text


def test_promised_memory_is_not_promised_twice() -> None:
    """What the holder of a share was promised counts before it has allocated it."""
    slots = _slots(GPUS[0])
    assert slots.take(Wish(0.5, vram_bytes=50 * _GIB)) is not None
    assert slots.take(Wish(0.5, vram_bytes=50 * _GIB)) is None
    assert slots.take(Wish(0.5, vram_bytes=20 * _GIB)) is not None


def test_gpu_comes_back_when_its_memory_is_free() -> None:
    """After an attempt its GPU is handed out again only once its memory has fallen to what it was."""
    machine = Machine(*GPUS[:1])
    slots = Slots(machine)
    slot = slots.take(Wish(1.0))
    assert slot is not None
    machine.use(0, 33)
    slots.give_back(slot)
    assert slots.take(Wish(1.0)) is None
    assert slots.refusal.text == "the memory of gpu0 is not free yet: 33.0 GiB more than before"
    machine.use(0, 0.1)
    assert slots.take(Wish(1.0)) is not None


def test_gpu_that_the_driver_lost_is_not_handed_out() -> None:
    """A GPU that fell off the bus is gone, and nobody waits for it."""
    machine = Machine(*GPUS[:1])
    slots = Slots(machine)
    machine.gpus.clear()
    assert slots.take(Wish(1.0)) is None
    assert (slots.refusal.text, slots.refusal.may_pass) == ("gpu0 is gone", False)


def test_timing_task_has_the_machine_to_itself() -> None:
    """It starts when nothing else runs, and nothing else starts before it has ended."""
    slots = _slots(*GPUS[:2], jobs=2)
    other = slots.take(Wish(0.0))
    assert other is not None
    assert slots.take(Wish(1.0, timing=True)) is None
    slots.give_back(other)
    timing = slots.take(Wish(1.0, timing=True))
    assert timing is not None
    assert slots.take(Wish(0.0)) is None
    assert slots.take(Wish(1.0)) is None
    slots.give_back(timing)
    assert slots.take(Wish(0.0)) is not None


def test_split_gpu_is_handed_out_in_parts() -> None:
    """MIG devices stand for the GPU that is split into them; CUDA knows them by UUID alone."""
    whole = replace(GPUS[0], mig=PARTS)
    assert units(Driver("1", (12, 0), (whole, GPUS[1]))) == (*PARTS, GPUS[1])
    slots = _slots(whole)
    first, second = slots.take(Wish(1.0, by_index=True)), slots.take(Wish(1.0))
    assert first is not None
    assert second is not None
    assert first.variables()["CUDA_VISIBLE_DEVICES"] == "MIG-one11111"
    assert second.label == "gpu0/two22222"
    assert slots.take(Wish(1.0)) is None


def test_worker_sees_its_gpus_and_no_others() -> None:
    """A GPU slot names its GPUs, by UUID or where that is asked for by number; a CPU slot hides them all."""
    assert Slot(GPUS[:2]).variables()["CUDA_VISIBLE_DEVICES"] == "GPU-0abc,GPU-1abc"
    assert Slot(GPUS[1:], by_index=True).variables()["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert Slot().variables() == {"CUDA_VISIBLE_DEVICES": "", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_threads_are_shared_only_where_several_run() -> None:
    """One attempt has all processors, several their share; a choice of the user's own stands."""
    assert thread_variables(1, {}) == {}
    assert thread_variables(10_000, {}) == {"OMP_NUM_THREADS": "1"}
    assert thread_variables(2, {"OMP_NUM_THREADS": "7"}) == {}


# Takes memory of its GPU, as the recorded driver tells it, and gives it back some time after its end.
_HOLDER = """
import json, os, subprocess, sys, time
from pathlib import Path

RECORD = Path(os.environ["ENVBUILDER_NVML"])
CHANGE = '''
import json, os, sys
path, free = sys.argv[1], int(sys.argv[2])
record = json.load(open(path))
record["gpus"][0]["free_bytes"] = free
json.dump(record, open(path + ".new", "w"))
os.replace(path + ".new", path)
'''

class Plugin:
    def load(self, context):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-0abc"
        record = json.loads(RECORD.read_text())
        self.free = record["gpus"][0]["free_bytes"]
        subprocess.run([sys.executable, "-c", CHANGE, str(RECORD), str(self.free - 10 * 2**30)], check=True)

    def predict(self, batch):
        time.sleep(2.5)
        return [f"{self.free / 2**30:.0f}"] * len(batch)
"""


def test_run_waits_for_the_memory_of_the_task_before(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two tasks on one GPU the second starts when the first one's memory is free, and what was used is on record."""
    import threading

    record = bench.write("driver.json", json.dumps(asdict(Machine(GPUS[0])())))
    monkeypatch.setenv("ENVBUILDER_NVML", str(record))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    bench.plugin("holder", _HOLDER)
    bench.plugin("other", _HOLDER)
    request = bench.request("inference: [{plugin: holder, batch: 3, gpus: 1}, {plugin: other, batch: 3, gpus: 1}]\n")

    def free_later() -> None:
        # The memory of the first is free a while after it has ended, as a driver may take its time.
        from pipeline_bench import wait_for

        journal = "runs/*/events.jsonl"
        wait_for(lambda: any("task-ended" in path.read_text() for path in bench.state.glob(journal)), "the first task")
        document = json.loads(record.read_text())
        document["gpus"][0]["free_bytes"] = GPUS[0].free_bytes
        draft = record.with_suffix(".draft")
        draft.write_text(json.dumps(document))
        draft.replace(record)

    thread = threading.Thread(target=free_later)
    thread.start()
    outcome = execute_run(request)
    thread.join()
    assert outcome.ok, outcome.problems
    first, second = outcome.tasks
    assert (first.slot, first.device_name) == ("gpu0", "H100")
    assert first.peak_gpu_tree_bytes == 10 * _GIB
    assert first.peak_tree_bytes is not None
    answers = [
        json.loads(line)["answer"]
        for line in (bench.state / "runs/latest/answers/other@lines.jsonl").read_text().splitlines()
    ]
    assert answers == ["79"] * 3
    assert second.ok


def test_gpu_that_stays_busy_fails_the_task(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing else to do a run waits as long as it was told for a GPU that others use, and says who."""
    machine = Machine(GPUS[0])
    machine.use(0, 12, 4242)
    record = bench.write("driver.json", json.dumps(asdict(machine())))
    monkeypatch.setenv("ENVBUILDER_NVML", str(record))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    bench.plugin("echo", ECHO)
    (task,) = execute_run(bench.request("inference: [{plugin: echo, gpus: 1}]\ngpu-wait: 500ms")).tasks
    assert (task.status, task.code) == ("failed", "slot-busy")
    assert "used by others: 12.0 GiB (process 4242)" in str(task.error)


@pytest.mark.gpu
def test_real_gpu_is_seen_used_and_given_back(bench: Bench) -> None:
    """On a machine with a GPU and torch: discovered, handed out, its use on record, and free again afterwards."""
    from envbuilder import gpus

    driver = gpus.read()
    if driver is None:
        pytest.skip("needs an NVIDIA GPU and its driver")
    source = (
        "import time, torch\n\nclass Plugin:\n    def load(self, context):\n"
        "        assert context.device == 'cuda'\n        self.held = torch.zeros(2**30, device='cuda')\n\n"
        "    def predict(self, batch):\n        time.sleep(3)\n        return ['x'] * len(batch)\n"
    )
    bench.plugin("holder", source)
    outcome = execute_run(bench.request("inference: [{plugin: holder, batch: 3, gpus: 1}]"))
    (task,) = outcome.tasks
    assert task.ok, task.error
    assert task.peak_gpu_bytes == 4 * _GIB
    assert task.peak_gpu_tree_bytes is not None
    assert task.peak_gpu_tree_bytes > 4 * _GIB
    slots = Slots()
    slot = slots.take(Wish(1.0))
    assert slot is not None
