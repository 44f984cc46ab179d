"""Programs that measure, each ``python -m tests.benchmarks.NAME``; no tests."""
