"""Numbers to what people read: lines, progress, logs, plots."""
