"""For tests of what is built on this package: kits that run a model or a policy on a broker in memory."""

from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import HandlerKit, PolicyKit, ScorerKit
from braidstream.testing.worker import DeadLetter

__all__ = ["DeadLetter", "FakeBroker", "HandlerKit", "PolicyKit", "ScorerKit"]
