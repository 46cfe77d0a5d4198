"""The pipeline's components, in the order data meets them (see DESIGN: one word, one place)."""
