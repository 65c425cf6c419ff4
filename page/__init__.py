"""The page that app.py serves, one section a file."""
