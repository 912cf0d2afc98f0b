"""Bundles: what builds need, in one file, for machines that have neither a network nor a uv cache."""
