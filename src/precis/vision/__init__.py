"""Convolutional networks and their building blocks."""
