"""The daily work with plugins: testing, what CI runs, developing, releasing."""
