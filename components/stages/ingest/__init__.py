"""Whatever form a dataset has, it leaves here as shards of checked images with a manifest."""
