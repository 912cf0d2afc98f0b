"""Report documents for the tests: one as a run leaves it, and small ones for the edges."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

from PIL import Image, ImageDraw, ImageFont
from vlm_core import EvaluationDocument, RecordDocument, ReportDocument, RunDocument, TaskDocument

TEXTS = {
    "digits": ["0042", "1957", "30818", "77120", "6", "94"],
    "line-en": [
        "Invoice No. 2024-117, due in 30 days",
        "The quick brown fox jumps over the lazy dog",
        "Please sign here and return the copy",
        "Total amount payable: 1,250.00 EUR",
        "Handle with care, this side up",
        "Delivery by courier before noon",
    ],
    "line-ru": [
        "Съешь же ещё этих мягких французских булок",
        "Счёт на оплату № 318 от 12 марта",
        "Грузополучатель и его адрес",
        "Подпись руководителя и печать",
        "Итого к оплате с учётом НДС",
        "Хранить в сухом прохладном месте",
    ],
}
LATIN = str.maketrans("авекмнорстухАВЕКМНОРСТУХ", "abekmhopctyxABEKMHOPCTYX")


def run(**changes: Any) -> RunDocument:
    """Describe a run."""
    document: dict[str, Any] = {
        "id": "20261103-091207-3f2a",
        "name": "document-lines",
        "profile": "prod",
        "started": "2026-11-03T09:12:07+00:00",
        "finished": "2026-11-03T09:15:19.4+00:00",
        "seed": 0,
        "host": {"host": "bench-01", "system": "Linux 6.1 x86_64"},
    }
    return {**document, **changes}  # type: ignore[typeddict-item]


def task(name: str, stage: str = "inference", **changes: Any) -> TaskDocument:
    """Describe a task that went well."""
    document: dict[str, Any] = {
        "id": name,
        "stage": stage,
        "plugin": name,
        "data": "lines" if stage == "inference" else None,
        "params": {},
        "status": "ok",
        "error": None,
        "device": "cpu",
        "device_name": "AMD EPYC 7B13",
        "items": 18,
        "failed_items": 0,
        "load_s": 0.42,
        "wall_s": 12.7,
        "items_per_s": 8.1,
        "peak_ram_bytes": 412 * 2**20,
        "environment": "9c41d07be2",
        "versions": {"python": "3.11.7", name: "0.1.0", "numpy": "1.26.4"},
    }
    return {**document, **changes}  # type: ignore[typeddict-item]


def record(item: str, answer: str | None, *references: str, **changes: Any) -> RecordDocument:
    """Describe an item as `ocr-a` answered it."""
    document: dict[str, Any] = {
        "task": "ocr-a",
        "data": "lines",
        "item": item,
        "image": None,
        "question": "",
        "doc_class": "",
        "question_type": "transcription",
        "references": list(references) or ["reference"],
        "answer": answer,
        "error": None if answer is not None else "ValueError: broken image",
        "latency_s": 0.02 if answer is not None else None,
    }
    return {**document, **changes}  # type: ignore[typeddict-item]


def evaluation(inference: str, overall: dict[str, float], **changes: Any) -> EvaluationDocument:
    """Describe an evaluation by `text-metrics`."""
    document: dict[str, Any] = {
        "inference": inference,
        "eval": "text-metrics",
        "data": "lines",
        "overall": overall,
        "by_class": {},
        "by_item": [],
        "lower_is_better": ["cer", "wer"],
    }
    return {**document, **changes}  # type: ignore[typeddict-item]


def small(**changes: Any) -> ReportDocument:
    """Describe a run of one task with two items, one right and one wrong."""
    document: dict[str, Any] = {
        "run": run(),
        "tasks": [task("ocr-a", items=2), task("text-metrics", "eval")],
        "records": [record("1", "right", "right"), record("2", "wr0ng", "wrong")],
        "evaluations": [
            evaluation(
                "ocr-a", {"cer": 0.1, "exact": 0.5}, by_item=[{"item": "1", "cer": 0.0}, {"item": "2", "cer": 0.2}]
            )
        ],
    }
    return {**document, **changes}  # type: ignore[typeddict-item]


def realistic(folder: Path, font: str | None = None) -> ReportDocument:
    """Describe a run as it is: three models that read, of which one knows no Cyrillic, and one that crashed.

    Args:
        folder: where the images are drawn.
        font: a font file with Cyrillic letters; Pillow's own, without them, where it is left out.
    """
    models = [
        task("ocr-crnn-1", plugin="ocr-crnn", params={"beam": 1}, load_s=1.31, items_per_s=22.4, failed_items=1),
        task("ocr-crnn-4", plugin="ocr-crnn", params={"beam": 4}, load_s=1.34, items_per_s=9.8),
        task("ocr-rapid", params={"threads": 2}, load_s=0.19, items_per_s=57.2),
        task(
            "vlm-large",
            status="oom-host",
            error="MemoryError: unable to allocate 14.2 GiB for weights\n  at load()",
            items=0,
            load_s=None,
            items_per_s=None,
        ),
    ]
    dice = random.Random(7)  # noqa: S311 - the same document every time
    records, evaluations = [], []
    for place, model in enumerate(models[:3]):
        own = [
            _read(dice, model["id"], place, (name, number), _draw(folder, f"{name}-{number}", text, font))
            for name, texts in TEXTS.items()
            for number, text in enumerate(texts)
        ]
        if place == 0:
            own[4] |= {"answer": None, "error": "UnidentifiedImageError: cannot identify image file", "latency_s": None}
        records += own
        evaluations.append(_judge(model["id"], own))
    others = [
        task("text-metrics", "eval", params={"metrics": ["cer", "wer", "anls", "exact"]}, wall_s=0.3),
        task("html-report", "report", wall_s=1.1),
    ]
    return {"run": run(), "tasks": [*models, *others], "records": records, "evaluations": evaluations}


def _draw(folder: Path, name: str, text: str, font: str | None) -> str:
    path = folder / f"{name}.png"
    face = ImageFont.truetype(font, 34) if font else ImageFont.load_default(34)
    image = Image.new("L", (int(face.getlength(text)) + 24, 58), 255)
    ImageDraw.Draw(image).text((12, 8), text, font=face, fill=20)
    image.save(path)
    return str(path)


def _read(dice: random.Random, model: str, place: int, item: tuple[str, int], image: str) -> RecordDocument:
    name, number = item
    text = TEXTS[name][number]
    noise = (0.05, 0.025, 0.01)[place]
    answer = text.translate(LATIN) if place == 2 and name == "line-ru" else text
    answer = "".join("" if dice.random() < noise else letter for letter in answer)
    if dice.random() < noise * 4:
        answer = answer.replace("o", "0", 1).replace("и", "н", 1)
    latency = (0.042, 0.097, 0.015)[place] * dice.lognormvariate(0, 0.3) * (0.5 + len(text) / 50)
    return record(
        f"{name}/{number:03}",
        answer,
        text,
        task=model,
        image=image,
        doc_class=name,
        question="What does the line say?",
        latency_s=latency,
    )


def _judge(model: str, records: list[RecordDocument]) -> EvaluationDocument:
    def figures(members: list[RecordDocument]) -> dict[str, float]:
        edits = [_edits(member["references"][0], member["answer"] or "") for member in members]
        lengths = [len(member["references"][0]) for member in members]
        right = sum(member["answer"] == member["references"][0] for member in members) / len(members)
        shares = [1 - edit / length for edit, length in zip(edits, lengths, strict=True)]
        return {
            "cer": sum(edits) / sum(lengths),
            "wer": min(1.0, sum(edits) / sum(lengths) * 4),
            "anls": sum(share for share in shares if share > 0.5) / len(members),
            "exact": right,
        }

    return evaluation(
        model,
        figures(records),
        by_class={name: figures([member for member in records if member["doc_class"] == name]) for name in TEXTS},
        by_item=[{"item": member["item"], **figures([member])} for member in records],
    )


def _edits(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for place, letter in enumerate(first, 1):
        previous, row[0] = row[0], place
        for column, other in enumerate(second, 1):
            previous, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, previous + (letter != other))
    return row[-1]


def eventful(folder: Path, font: str | None = None) -> ReportDocument:
    """Describe a dev run in which much happened: two GPUs, an attempt that ran out of memory, a run gone on with.

    Args:
        folder: where the images are drawn.
        font: a font file with Cyrillic letters; Pillow's own, without them, where it is left out.
    """
    document = realistic(folder, font)
    tasks: dict[str, dict[str, Any]] = {task["id"]: _told(task) for task in document["tasks"]}
    tasks["ocr-crnn-1"] |= {
        "degraded": ["CUDA out of memory with a batch of 16: goes on with 8"],
        "attempts": [
            _attempt("ocr-crnn-1.1", "oom-gpu", "CUDA out of memory. Tried to allocate 2.00 GiB", oom=0, wall_s=8.0),
            _attempt("ocr-crnn-1.2", "ok", None, oom=0, wall_s=19.0),
        ],
        "metrics": {"tokens": 18234, "confidence": 0.931},
    }
    tasks["ocr-crnn-4"] |= {"warm": True}
    tasks["ocr-rapid"] |= {"reused": "20261102T200000Z-document-lines-aa11bb", "attempts": []}
    tasks["vlm-large"] |= {
        "code": "oom-killed",
        "log": "logs/vlm-large.1.err.log",
        "log_tail": ["Loading checkpoint shards:  50%|█████     | 2/4", "Загрузка весов…", "Killed"],
        "attempts": [
            _attempt("vlm-large.1", "oom-host", "killed by the kernel for want of memory", oom=2, wall_s=31.0)
        ],
    }
    bars = [
        _bar("GPU 0", "ocr-crnn-1", 1, (0.0, 8.0, 3.1), "oom-gpu"),
        _bar("GPU 1", "vlm-large", 1, (0.4, 31.4, None), "oom-host"),
        _bar("GPU 0", "ocr-crnn-1", 2, (9.0, 28.0, 2.9), "ok"),
        _bar("GPU 0", "ocr-crnn-4", 1, (28.2, 58.0, None), "ok"),
        _bar("cpu", "text-metrics", 1, (0.0, 0.9, 0.2), "ok", session=1),
    ]
    extra = {
        "tasks": list(tasks.values()),
        "timeline": bars,
        "samples": [_curve(bar) for bar in bars[:4]],
        "repetitions": [],
    }
    run_ = {**document["run"], "profile": "dev", "code": {"packages/ocr-crnn": CHECKOUT}}
    return cast("ReportDocument", {**document, **extra, "run": run_})


CHECKOUT = {
    "digest": "5f0d" * 16,
    "commit": "d7b17dba2b22925a34eb4d4915ffb09134766425",
    "difference": "9e1c" * 16,
    "dirty": True,
}


def repeated(values: tuple[float, ...]) -> ReportDocument:
    """Describe a run of one model that was done several times, with these character errors."""
    names = [f"ocr-a@lines#{number}" for number in range(1, len(values) + 1)]
    document: dict[str, Any] = {
        **small(
            tasks=[task(name, plugin="ocr-a", items=2) for name in names] + [task("text-metrics", "eval")],
            records=[record(item, "wr0ng", "wrong", task=name) for name in names for item in ("1", "2")],
            evaluations=[evaluation(name, {"cer": value}) for name, value in zip(names, values, strict=True)],
        ),
        "repetitions": [{"name": "ocr-a@lines", "data": "lines", "tasks": names}],
    }
    return cast("ReportDocument", document)


def _told(model: TaskDocument) -> dict[str, Any]:
    made_by = {
        "environment": model["environment"],
        "lock_digest": "sha256:" + "ef9b" * 16,
        "source": {"url": f"https://git.example.org/{model['plugin']}.git", "ref_kind": "tag", "ref": "v0.1.0"},
        "pin": {"commit": "d7b17dba2b22925a34eb4d4915ffb09134766425"},
        "code": {},
        "data": {"name": "lines", "digest": "a1b2" * 16, "items": 18} if model["stage"] == "inference" else None,
        "judged": None,
        "params": model["params"],
        "batch": 16,
        "seed": 0,
        "deterministic": False,
        "identity": "c3d4" * 16,
        "attempts": [f"{model['id']}.1"],
    }
    return {
        **model,
        "slot": "GPU 0",
        "warm": False,
        "reused": None,
        "degraded": [],
        "metrics": {},
        "peak_gpu_tree_bytes": 5 * 2**30,
        "peak_tree_bytes": 3 * 2**30,
        "cpu_s": 14.0,
        "log": None,
        "log_tail": [],
        "attempts": [_attempt(f"{model['id']}.1", "ok", None, oom=0, wall_s=12.7)],
        "provenance": made_by,
    }


def _attempt(name: str, status: str, error: str | None, *, oom: int, wall_s: float) -> dict[str, Any]:
    return {
        "id": name,
        "status": status,
        "code": None if status == "ok" else status,
        "error": error,
        "wall_s": wall_s,
        "returncode": 0 if status == "ok" else -9,
        "anomalies": {},
        "oom_kills": {"cgroup": oom} if oom else {},
    }


def _bar(
    slot: str, name: str, number: int, times: tuple[float, float, float | None], status: str, session: int = 0
) -> dict[str, Any]:
    begin, end, load_s = times
    return {
        "slot": slot,
        "task": name,
        "attempt": f"{name}.{number}",
        "session": session,
        "start": _moment(begin + 3600 * session),
        "end": _moment(end + 3600 * session),
        "load_s": load_s,
        "status": status,
        "code": None if status == "ok" else status,
    }


def _moment(second: float) -> str:
    return (datetime(2026, 11, 3, 9, 12, 7, tzinfo=timezone.utc) + timedelta(seconds=second)).isoformat()


def _curve(bar: dict[str, Any]) -> dict[str, Any]:
    length = (datetime.fromisoformat(bar["end"]) - datetime.fromisoformat(bar["start"])).total_seconds()
    dice = random.Random(bar["attempt"])  # noqa: S311 - the same document every time
    ceiling = dice.uniform(3, 22)
    points = [
        [
            second,
            int(min(second / 4, 1) * 3.1 * 2**30),
            int(min(second / 3, 1) * ceiling * dice.uniform(0.9, 1) * 2**30),
        ]
        for second in range(1, int(length) + 1)
    ]
    return {**{name: bar[name] for name in ("task", "attempt", "session", "start")}, "points": points}
