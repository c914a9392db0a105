"""Networks from other tools: an ONNX file becomes a config and its weights."""
