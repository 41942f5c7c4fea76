"""Tasks × methods × seeds × depths: run, resumed, compared."""
