"""`coordinator doctor`: what a coordinator needs, and the archive for support."""
