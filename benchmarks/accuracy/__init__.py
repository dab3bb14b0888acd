"""Accuracy of NEDS and its peers on the example recordings."""
