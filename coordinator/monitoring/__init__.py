"""How a run stands, as metrics: a pure function of the status, and of a few facts of this machine."""
