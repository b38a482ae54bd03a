"""Is this machine, and this home, as the programs need it? And an archive for who helps, which names nobody."""
