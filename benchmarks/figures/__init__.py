"""One file per figure or group of figures, with :data:`benchmarks.bench.Measurement` functions."""
