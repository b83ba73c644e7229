"""Multi-scale deformable attention: one operator, several backends."""
