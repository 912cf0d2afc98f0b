"""Carries a plan out: stage by stage, task by task, as slots become free."""

from pipeline.scheduler.record import Header, Record, problems_of
from pipeline.scheduler.stages import Scheduler
from pipeline.scheduler.tries import Setting

__all__ = ["Header", "Record", "Scheduler", "Setting", "problems_of"]
