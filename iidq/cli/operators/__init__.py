"""Commands for operators: jobs, stats, watch, doctor."""
