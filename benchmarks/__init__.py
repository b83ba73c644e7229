"""Side-by-side measurements: one script a question, `table` for all of them."""
