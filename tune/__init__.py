"""Decide and record: the search over trials. Imports smolvla_core, never the reverse."""
