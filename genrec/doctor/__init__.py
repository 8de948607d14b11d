"""Is everything in order? The machine, the data, the cache, the runs and a config, and what mends what is not."""
