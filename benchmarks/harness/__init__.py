"""What benchmarks share: copies of this checkout, images, training, processes, a browser and result files."""
