"""Inference, eval and report as supervised subprocesses inside ready environments."""
