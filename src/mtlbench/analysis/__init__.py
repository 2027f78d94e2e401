"""Studies beside the benchmark: each a command of its own, its tables and figures under results/analysis/."""
