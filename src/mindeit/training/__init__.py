"""The loops: what runs a model over many batches."""
