"""The notification consumer: `python -m moderation.notifications`."""

from braidstream import run_handler
from moderation.notifications.ranking import NotificationSettings, make_handler
from moderation.pipeline import MODERATION, NOTIFICATIONS, NOTIFIED

if __name__ == "__main__":
    run_handler(MODERATION, "notifications", make_handler, NotificationSettings, writes=NOTIFICATIONS, once=NOTIFIED)
