"""From run folders to tables, step by step: curves, cache, gather; selection, rows, choice, comparison; then
presentation, sections, pareto, tables."""
