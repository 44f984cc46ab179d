"""Datasets: import, synthesis, audit, reading, sampling and batching."""
