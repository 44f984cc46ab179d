"""Closed-loop evaluation: a policy acts in an environment, and what it achieves is scored.

``environment`` what is acted in, ``stage`` runs it (``worker`` in processes of their own), ``policies``
who acts, ``rollout`` all episodes in step, ``scores`` means with intervals, ``results`` the files,
``command`` the command line. See docs/serving.md.
"""
