"""What the command line calls: run a run file, plan one, look at runs. Prints nothing and never exits."""

from pipeline.cli.comparing import diff_runs
from pipeline.cli.export import Export, export_csv
from pipeline.cli.following import follow_run
from pipeline.cli.history import list_runs, live_environments, load_outcome, show_run
from pipeline.cli.parquet import export_parquet
from pipeline.cli.resuming import Resumable, find_resumable, resume_run
from pipeline.cli.running import RunRequest, execute_run, machine_problems, plan_run, plugins_of, weights_memo
from pipeline.cli.why import explain_run
from pipeline.scheduler import Terms

__all__ = [
    "Export",
    "Resumable",
    "RunRequest",
    "Terms",
    "diff_runs",
    "execute_run",
    "explain_run",
    "export_csv",
    "export_parquet",
    "find_resumable",
    "follow_run",
    "list_runs",
    "live_environments",
    "load_outcome",
    "machine_problems",
    "plan_run",
    "plugins_of",
    "resume_run",
    "show_run",
    "weights_memo",
]
