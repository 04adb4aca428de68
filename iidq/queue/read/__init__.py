"""Reads of jobs and of the queue's health."""
