"""A page in the browser that shows what a detector finds, and what it looks at."""
