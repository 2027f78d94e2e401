"""From run folders to tables, step by step: curves, cache and gather read them; rules, selection, epochs, choice and
comparison make rows of them; presentation, sections, pareto, reproduction, records, status, tables and the figures
show the rows; report holds all of it as plain values."""
