"""The shape of the document that a report plugin renders: plain JSON values, given as a dictionary."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, TypedDict


class RunDocument(TypedDict):
    """The run as a whole. Times are ISO 8601 in UTC."""

    id: str
    name: str
    profile: str
    started: str
    finished: Optional[str]
    seed: int
    host: Dict[str, str]


class TaskDocument(TypedDict):
    """One task of the run.

    ``status`` is ``ok``, ``failed``, ``timeout``, ``oom-gpu``, ``oom-host``, ``killed`` or ``cancelled``;
    ``versions`` names the Python, the plugin and the packages worth knowing (torch, onnxruntime, numpy, ...).
    ``device`` is ``cpu`` or ``cuda``, ``device_name`` the processor's or GPU's own name. Seconds are wall time.
    """

    id: str
    stage: str
    plugin: str
    data: Optional[str]
    params: Dict[str, Any]
    status: str
    error: Optional[str]
    device: str
    device_name: str
    items: int
    failed_items: int
    load_s: Optional[float]
    wall_s: Optional[float]
    items_per_s: Optional[float]
    peak_ram_bytes: Optional[int]
    environment: str
    versions: Dict[str, str]


class RecordDocument(TypedDict):
    """One item as one inference task answered it; ``image`` is an absolute path or None."""

    task: str
    data: str
    item: str
    image: Optional[str]
    question: str
    doc_class: str
    question_type: str
    references: List[str]
    answer: Optional[str]
    error: Optional[str]
    latency_s: Optional[float]


class EvaluationDocument(TypedDict):
    """One eval task's figures on one inference task; ``inference`` and ``eval`` are task ids."""

    inference: str
    eval: str
    data: str
    overall: Dict[str, float]
    by_class: Dict[str, Dict[str, float]]
    by_item: List[Dict[str, Any]]
    lower_is_better: List[str]


class ReportDocument(TypedDict):
    """Everything that a report shows."""

    run: RunDocument
    tasks: List[TaskDocument]
    records: List[RecordDocument]
    evaluations: List[EvaluationDocument]
