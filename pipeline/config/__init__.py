"""Run files and data sets: what people write, read with the place of everything that is wrong."""

from pipeline.config.load import RunConfig, load_run, plugins_named, read_run_file
from pipeline.config.runfile import RunFile
from pipeline.config.weights import weight_files

__all__ = ["RunConfig", "RunFile", "load_run", "plugins_named", "read_run_file", "weight_files"]
