"""What `python -m mtlbench.inspect` shows."""
