"""Placeholder until the job."""
