"""From run folders to tables, step by step: gather, naming, comparison, presentation, tables."""
