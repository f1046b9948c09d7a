"""Schedules that put things right by themselves: packaging that failed for passing reasons, and drift."""

