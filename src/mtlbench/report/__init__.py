"""report.html: one page with everything that a sweep's tables and figures show, and what repeats each of its runs."""
