"""Run folders in, answers out: pages, comparisons and lists."""
