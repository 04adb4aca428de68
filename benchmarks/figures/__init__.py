"""One file per figure or group of figures; each holds its :data:`benchmarks.bench.Measurement` functions."""
