"""Sinks beside metrics.jsonl: a run never needs one, and what is in a record never comes from one.

A logger follows one run, in rank 0 alone. It is a class with
    start(folder, run_id, config, lines)   the run's folder and identity; the lines of metrics.jsonl so far
    line(line)                             one epoch, as written to metrics.jsonl
    finish(record)                         the run's record, or None for a run that was stopped or failed
"""
