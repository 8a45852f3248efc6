"""From a trained student to the folder that ships: ONNX graph, quantisation ladder, package, runtime."""
