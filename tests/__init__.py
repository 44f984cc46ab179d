"""Tests mirror the modules; ``benchmarks`` are programs, not tests."""
