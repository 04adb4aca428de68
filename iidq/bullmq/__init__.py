"""Mirror jobs under the keys of BullMQ, for tools that read the Redis of the replaced system."""
