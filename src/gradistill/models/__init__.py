"""Loading models, building students, and the probe that looks inside them."""
