"""The tape (L3): its nodes and the engine that walks it backwards. Knows no Tensor and no op."""
