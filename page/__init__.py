"""Parts of the page that app.py puts together: its networks, its viewer, and the section that looks inside them."""
