from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.slots import Gpu, Slot, Slots, allowed, discover_gpus, parse_gpus, thread_variables

if TYPE_CHECKING:
    from pathlib import Path

GPUS = tuple(Gpu(index, f"GPU-{index}abc", "H100", 80 * 1024**3, "570.1") for index in range(3))

LISTING = "0, GPU-0abc, NVIDIA H100 80GB HBM3, 81559, 570.1\n1, GPU-1abc, Old, [N/A], 570.1\nNo devices were found\n"


def test_listing_of_the_driver_is_read() -> None:
    """Index, UUID, name, memory in bytes and driver are taken; what is no GPU is passed over."""
    first, second = parse_gpus(LISTING)
    assert first == Gpu(0, "GPU-0abc", "NVIDIA H100 80GB HBM3", 81559 * 1024 * 1024, "570.1")
    assert second.memory_bytes == 0


def test_gpus_are_asked_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nvidia-smi lists is what there is; where it is missing or fails there is none."""
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    if not any(gpu.driver for gpu in discover_gpus()):
        assert discover_gpus() == ()
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTING}END\n")
    tool.chmod(0o755)
    assert [gpu.index for gpu in discover_gpus()] == [0, 1]
    assert [gpu.index for gpu in discover_gpus("1")] == [1]
    assert discover_gpus("") == ()
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert discover_gpus() == ()


@pytest.mark.parametrize(
    ("visible", "indices"),
    [(None, [0, 1, 2]), ("2,0", [2, 0]), ("GPU-1", [1]), ("1,7,0", [1]), ("-1", []), ("GPU", [])],
)
def test_visible_devices_are_respected(visible: str | None, indices: list[int]) -> None:
    """CUDA_VISIBLE_DEVICES limits and orders the GPUs as CUDA itself would."""
    assert [gpu.index for gpu in allowed(GPUS, visible)] == indices


def test_auto_is_a_gpu_or_the_processor() -> None:
    """Where there is a GPU auto takes one, else the CPU."""
    slots = Slots(GPUS[:1])
    first = slots.take(None)
    assert first is not None
    assert (first.device, slots.take(None)) == ("cuda", None)
    slots.give_back(first)
    again = slots.take(None)
    assert again is not None
    assert again.gpus == first.gpus
    without = Slots().take(None)
    assert without is not None
    assert without.device == "cpu"


def test_whole_gpus_are_exclusive_and_shares_gather() -> None:
    """Shares of one GPU go together, so that others stay whole."""
    slots = Slots(GPUS[:2])
    half, other_half = slots.take(0.5), slots.take(0.5)
    assert half is not None
    assert other_half is not None
    assert half.gpus == other_half.gpus
    whole = slots.take(1.0)
    assert whole is not None
    assert whole.gpus != half.gpus
    assert slots.take(0.1) is None
    slots.give_back(half)
    assert slots.take(1.0) is None
    assert slots.take(0.5) is not None


def test_several_gpus_are_taken_together() -> None:
    """Two GPUs are granted at once or not at all."""
    slots = Slots(GPUS)
    two = slots.take(2.0)
    assert two is not None
    assert len(two.gpus) == 2
    assert slots.take(2.0) is None
    assert slots.take(1.0) is not None


def test_jobs_limit_what_shares_the_processor() -> None:
    """The CPU takes as many attempts as asked for, and a GPU's attempt is none of them."""
    slots = Slots(GPUS[:1], jobs=2)
    taken = [slots.take(0.0), slots.take(0.0), slots.take(0.0), slots.take(1.0)]
    assert [slot is not None for slot in taken] == [True, True, False, True]


def test_wish_that_can_never_be_granted_is_told() -> None:
    """More GPUs than there are is said at once."""
    assert Slots(GPUS).lacking(4.0) == "needs 4 GPUs, found 3"
    assert Slots().lacking(0.5) == "needs 0.5 GPU, found none"
    assert Slots().lacking(None) is None
    assert Slots().lacking(0.0) is None


def test_worker_sees_its_gpus_by_uuid_only() -> None:
    """A GPU slot names its GPUs; a CPU slot hides them all."""
    assert Slot(GPUS[:2]).variables()["CUDA_VISIBLE_DEVICES"] == "GPU-0abc,GPU-1abc"
    assert Slot().variables() == {"CUDA_VISIBLE_DEVICES": "", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_threads_are_shared_only_where_several_run() -> None:
    """One attempt has all processors, several their share; a choice of the user's own stands."""
    assert thread_variables(1, {}) == {}
    assert int(thread_variables(1000, {})["OMP_NUM_THREADS"]) == 1
    assert thread_variables(2, {"OMP_NUM_THREADS": "3"}) == {}
