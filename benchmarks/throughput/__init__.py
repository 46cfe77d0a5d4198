"""How fast a student is distilled, by this project and by its peers."""
