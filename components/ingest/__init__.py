"""Whatever form a dataset has, it leaves here as shards of decoded images with a manifest."""
