"""A model of a study or a site, as files for others: its card, safetensors, ONNX."""
