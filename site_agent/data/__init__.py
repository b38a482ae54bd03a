"""The site's images as a collection: read from the manifest, indexed, decoded once, given out in batches."""
