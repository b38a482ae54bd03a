"""Notifications: a person learns what happened without looking. To a webhook, by mail. See docs/notifications.md."""
