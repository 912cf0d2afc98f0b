"""From registry entries to pins and one ``uv.lock`` per plugin, and whether those still hold."""
