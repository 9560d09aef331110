"""Pieces of one model at several agents: stages in a row, batches passing up, gradients coming back."""
