"""Export to MindIR, ONNX and AIR, and running exported files."""
