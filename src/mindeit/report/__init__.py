"""A run on one page: `report.html`, a file that needs no other and asks no other place for anything."""
