"""A student as others run it: an ONNX graph, its INT8 form, what both lose, and what they save."""
