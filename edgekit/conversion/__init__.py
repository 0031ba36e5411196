"""From torch to ONNX, clean-ups, and the fixed batch that is compiled."""
