"""Building blocks of asyncio code that know nothing of jobs: background tasks, caches, circuit breakers."""
