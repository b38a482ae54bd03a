"""The site's images, as the commands that train open them."""

from __future__ import annotations

from fedcervix.core.plan import Recipe
from site_agent.commands.display import Display
from site_agent.commands.setting import reading
from site_agent.data import dataset
from site_agent.data.collection import Collection
from site_agent.data.remarks import remarks
from site_agent.federation import shown
from site_agent.home import SiteHome


def open_images(home: SiteHome, display: Display, recipe: Recipe) -> Collection:
    """Return the site's images, and say what should be known of their manifest before anything is trained.

    Raises ConfigError, DataError and StorageError, as `dataset.open_collection` does.
    """
    collection = dataset.open_collection(home, reading(display), recipes=[recipe])
    for remark in remarks(collection):
        display.show(shown.Message(f"note: {remark.short()}"))
    return collection
