"""Moderation of uploaded videos, on Braidstream."""
