"""Hints between processes: there is work, a job changed, a job was cancelled. Losing one costs time, never a job."""
