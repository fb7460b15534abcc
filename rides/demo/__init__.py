"""The demo: trips in, decisions out, in one command."""

from rides.demo.command import demo

__all__ = ["demo"]
