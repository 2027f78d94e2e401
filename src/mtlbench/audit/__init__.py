"""The aggregates that papers print, recomputed from the numbers that they print (aggregate --published)."""
