"""Statistics of a study: values in, values out; no file, no clock, no drawing. Every method names its source."""
