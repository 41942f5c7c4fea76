"""What people see and ship: pages, tables, plots, terminal views and the model card."""
