"""Decisions: the pure join of a subject's predictions, and the policy that it asks."""
