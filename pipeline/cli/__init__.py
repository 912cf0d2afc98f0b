"""What the command line calls: run a run file, plan one, look at runs. Prints nothing and never exits."""

from pipeline.cli.export import Export, export_csv
from pipeline.cli.history import list_runs, live_environments, load_outcome, show_run
from pipeline.cli.running import RunRequest, execute_run, plan_run, plugins_of

__all__ = [
    "Export",
    "RunRequest",
    "execute_run",
    "export_csv",
    "list_runs",
    "live_environments",
    "load_outcome",
    "plan_run",
    "plugins_of",
    "show_run",
]
