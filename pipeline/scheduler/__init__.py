"""Carries a plan out: stage by stage, task by task, as slots become free."""

from pipeline.scheduler.past import Archive, Found, Past, Planned, Terms, attempts_in, planned_in, trusted
from pipeline.scheduler.record import Header, Record, problems_of
from pipeline.scheduler.stages import Scheduler
from pipeline.scheduler.tries import Setting

__all__ = [
    "Archive",
    "Found",
    "Header",
    "Past",
    "Planned",
    "Record",
    "Scheduler",
    "Setting",
    "Terms",
    "attempts_in",
    "planned_in",
    "problems_of",
    "trusted",
]
