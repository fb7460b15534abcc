"""The consumer that notifies of each ride once, as a process."""

from __future__ import annotations

from braidstream.run import run_handler
from braidstream.settings import HandlerSettings
from tests.notifications import NOTIFICATIONS, NOTIFIED, NOTIFYING, notify

if __name__ == "__main__":
    run_handler(NOTIFYING, "notifying", lambda _: notify, HandlerSettings, writes=NOTIFICATIONS, once=NOTIFIED)
