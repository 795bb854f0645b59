"""The bedside: ONNX session, sliding window, exact inverse of the preparation. Never imports torch."""
