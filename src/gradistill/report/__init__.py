"""Reports: pages, tables, plots, terminal output and the model card."""
