"""Where a model drifts on its way from torch to the engine: the same input through every stage, tensor by tensor."""
