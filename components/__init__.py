"""The pipeline's components, in the order data meets them."""
