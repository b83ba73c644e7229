"""Pictures: of datasets, of what a detector finds and misses, of trainings; and the report."""
