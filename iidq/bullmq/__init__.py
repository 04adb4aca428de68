"""A mirror of jobs under the keys of BullMQ, for tools that read the replaced system's Redis."""
